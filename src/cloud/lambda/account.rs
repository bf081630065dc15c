//! The rest of the account: keys, file systems, images, firewall, log. What only Lambda has is inherent here, not in a trait.

use reqwest::Method;

use super::client::Call;
use super::provider::LambdaCloud;
use super::wire::{
    AddSshKey, AddedSshKey, AuditPage, AuditQuery, CreateFilesystem, CreateRuleset, DeletedFilesystems, Empty,
    Filesystem, FirewallRule, GlobalRuleset, Image, Instance, PatchGlobalRuleset, PatchRuleset, PutRules, Rename,
    Ruleset, SshKey,
};
use crate::cloud::{CloudError, CloudErrorKind};

/// The calls fail as [`CloudError`] says. Those that create something can fail with [`CloudErrorKind::UnknownOutcome`]: list before repeating.
impl LambdaCloud {
    /// All machines of the account, with everything that the service says of them.
    pub async fn instances(&self) -> Result<Vec<Instance>, CloudError> {
        self.client().call(&Call::get("/instances")).await
    }

    /// One machine.
    pub async fn instance(&self, id: &str) -> Result<Instance, CloudError> {
        self.client().call(&Call::get(below("/instances", id)?)).await
    }

    /// Renames a machine; `name` has at most 64 characters.
    pub async fn rename(&self, id: &str, name: &str) -> Result<Instance, CloudError> {
        let body = Rename { name: Some(name.to_owned()) };
        self.client().call(&Call::send(Method::POST, below("/instances", id)?, &body)).await
    }

    /// The account's SSH keys.
    pub async fn ssh_keys(&self) -> Result<Vec<SshKey>, CloudError> {
        self.client().call(&Call::get("/ssh-keys")).await
    }

    /// Stores a key, or has one made if there is no public half in the request.
    pub async fn add_ssh_key(&self, key: &AddSshKey) -> Result<AddedSshKey, CloudError> {
        self.client().call(&Call::send(Method::POST, "/ssh-keys", key).once()).await
    }

    /// Forgets a key; machines that have it keep it.
    pub async fn delete_ssh_key(&self, id: &str) -> Result<(), CloudError> {
        self.client().call::<Empty>(&Call::delete(below("/ssh-keys", id)?)).await.map(|Empty {}| ())
    }

    /// The account's file systems.
    pub async fn filesystems(&self) -> Result<Vec<Filesystem>, CloudError> {
        self.client().call(&Call::get("/file-systems")).await
    }

    /// Makes a file system; it costs money until it is deleted.
    pub async fn create_filesystem(&self, filesystem: &CreateFilesystem) -> Result<Filesystem, CloudError> {
        self.client().call(&Call::send(Method::POST, "/filesystems", filesystem).once()).await
    }

    /// Deletes a file system with all its content and returns the ids that are gone.
    pub async fn delete_filesystem(&self, id: &str) -> Result<Vec<String>, CloudError> {
        let deleted: DeletedFilesystems = self.client().call(&Call::delete(below("/filesystems", id)?)).await?;
        Ok(deleted.deleted_ids)
    }

    /// Images that can be launched, per region.
    pub async fn images(&self) -> Result<Vec<Image>, CloudError> {
        self.client().call(&Call::get("/images")).await
    }

    /// Inbound rules of the whole account.
    pub async fn firewall_rules(&self) -> Result<Vec<FirewallRule>, CloudError> {
        self.client().call(&Call::get("/firewall-rules")).await
    }

    /// **Replaces** the inbound rules of the whole account, other people's too: show them before asking for this.
    pub async fn replace_firewall_rules(&self, rules: Vec<FirewallRule>) -> Result<Vec<FirewallRule>, CloudError> {
        self.client().call(&Call::send(Method::PUT, "/firewall-rules", &PutRules { data: rules })).await
    }

    /// The account's rulesets.
    pub async fn rulesets(&self) -> Result<Vec<Ruleset>, CloudError> {
        self.client().call(&Call::get("/firewall-rulesets")).await
    }

    /// One ruleset.
    pub async fn ruleset(&self, id: &str) -> Result<Ruleset, CloudError> {
        self.client().call(&Call::get(below("/firewall-rulesets", id)?)).await
    }

    /// Makes a ruleset; it can only be attached by a launch.
    pub async fn create_ruleset(&self, ruleset: &CreateRuleset) -> Result<Ruleset, CloudError> {
        self.client().call(&Call::send(Method::POST, "/firewall-rulesets", ruleset).once()).await
    }

    /// Changes a ruleset, also while machines use it. A concurrent change is [`CloudErrorKind::Transient`]: read again, then repeat.
    pub async fn change_ruleset(&self, id: &str, change: &PatchRuleset) -> Result<Ruleset, CloudError> {
        self.client().call(&Call::send(Method::PATCH, below("/firewall-rulesets", id)?, change)).await
    }

    /// Deletes a ruleset that no machine uses.
    pub async fn delete_ruleset(&self, id: &str) -> Result<(), CloudError> {
        self.client().call::<Empty>(&Call::delete(below("/firewall-rulesets", id)?)).await.map(|Empty {}| ())
    }

    /// The ruleset of the whole account.
    pub async fn global_ruleset(&self) -> Result<GlobalRuleset, CloudError> {
        self.client().call(&Call::get("/firewall-rulesets/global")).await
    }

    /// **Replaces** the rules of the whole account, as [`Self::replace_firewall_rules`] does.
    pub async fn change_global_ruleset(&self, change: &PatchGlobalRuleset) -> Result<GlobalRuleset, CloudError> {
        self.client().call(&Call::send(Method::PATCH, "/firewall-rulesets/global", change)).await
    }

    /// One page of the log of who did what.
    pub async fn audit_events(&self, query: &AuditQuery) -> Result<AuditPage, CloudError> {
        let named = [
            ("start", &query.start),
            ("end", &query.end),
            ("page_token", &query.page_token),
            ("resource_type", &query.resource_type),
        ];
        let query = named.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value.clone()?))).collect();
        self.client().call(&Call::get("/audit-events").with_query(query)).await
    }
}

/// The path of one thing. Ids go into paths, so whatever could lead to another path is refused here.
fn below(collection: &str, id: &str) -> Result<String, CloudError> {
    let plain = !id.is_empty()
        && id.len() <= 128
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if plain {
        return Ok(format!("{collection}/{id}"));
    }
    Err(CloudError {
        kind: CloudErrorKind::Invalid,
        code: None,
        message: format!("`{}` is no id of Lambda's: those are letters, digits and dashes", id.escape_default()),
        hint: Some("ids stand in the lists that gorgo prints; names are something else".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::below;

    #[test]
    fn only_ids_become_paths() {
        let good = ["0920582c7ff041399e34823a0be62549", "43336648-096d-4cba-9aa2-f9bb7727639d", "global"];
        for id in good {
            assert_eq!(below("/x", id).unwrap(), format!("/x/{id}"));
        }
        for id in ["", "..", "a/b", "a?b", "a b", "a%2fb", "ü", "a\n", &"a".repeat(129)] {
            assert!(below("/x", id).is_err(), "{id:?}");
        }
    }
}
