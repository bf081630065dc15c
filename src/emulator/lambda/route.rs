//! From a method and a path to one of the 24 operations. File systems are listed with a hyphen and changed without.

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation<'a> {
    Instances,
    Instance(&'a str),
    Rename(&'a str),
    Types,
    Launch,
    Restart,
    Terminate,
    Keys,
    AddKey,
    DeleteKey(&'a str),
    Filesystems,
    CreateFilesystem,
    DeleteFilesystem(&'a str),
    Images,
    Rules,
    PutRules,
    Rulesets,
    CreateRuleset,
    GlobalRuleset,
    ChangeGlobalRuleset,
    Ruleset(&'a str),
    ChangeRuleset(&'a str),
    DeleteRuleset(&'a str),
    Audit,
}

/// Where a request leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    Found(Operation<'a>),
    /// The path exists, with these methods.
    WrongMethod(&'static str),
    Nowhere,
}

pub(super) fn route<'a>(method: &str, path: &'a str) -> Route<'a> {
    let Some(rest) = path.strip_prefix("/api/v1/") else { return Route::Nowhere };
    let parts: Vec<&str> = rest.split('/').collect();
    let choices: &[(&'static str, Operation<'a>)] = match parts[..] {
        ["instances"] => &[("GET", Operation::Instances)],
        ["instances", id] => &[("GET", Operation::Instance(id)), ("POST", Operation::Rename(id))],
        ["instance-types"] => &[("GET", Operation::Types)],
        ["instance-operations", "launch"] => &[("POST", Operation::Launch)],
        ["instance-operations", "restart"] => &[("POST", Operation::Restart)],
        ["instance-operations", "terminate"] => &[("POST", Operation::Terminate)],
        ["ssh-keys"] => &[("GET", Operation::Keys), ("POST", Operation::AddKey)],
        ["ssh-keys", id] => &[("DELETE", Operation::DeleteKey(id))],
        ["file-systems"] => &[("GET", Operation::Filesystems)],
        ["filesystems"] => &[("POST", Operation::CreateFilesystem)],
        ["filesystems", id] => &[("DELETE", Operation::DeleteFilesystem(id))],
        ["images"] => &[("GET", Operation::Images)],
        ["firewall-rules"] => &[("GET", Operation::Rules), ("PUT", Operation::PutRules)],
        ["firewall-rulesets"] => &[("GET", Operation::Rulesets), ("POST", Operation::CreateRuleset)],
        ["firewall-rulesets", "global"] => {
            &[("GET", Operation::GlobalRuleset), ("PATCH", Operation::ChangeGlobalRuleset)]
        }
        ["firewall-rulesets", id] => &[
            ("GET", Operation::Ruleset(id)),
            ("PATCH", Operation::ChangeRuleset(id)),
            ("DELETE", Operation::DeleteRuleset(id)),
        ],
        ["audit-events"] => &[("GET", Operation::Audit)],
        _ => return Route::Nowhere,
    };
    match choices.iter().find(|(wanted, _)| *wanted == method) {
        Some((_, operation)) => Route::Found(*operation),
        None => Route::WrongMethod(allowed(choices)),
    }
}

fn allowed(choices: &[(&'static str, Operation<'_>)]) -> &'static str {
    match choices {
        [(one, _)] => one,
        [("GET", _), ("POST", _)] => "GET, POST",
        [("GET", _), ("PUT", _)] => "GET, PUT",
        [("GET", _), ("PATCH", _)] => "GET, PATCH",
        _ => "GET, PATCH, DELETE",
    }
}

#[cfg(test)]
mod tests {
    use super::{Operation, Route, route};

    #[test]
    fn paths_lead_where_the_document_says() {
        let cases = [
            ("GET", "/api/v1/file-systems", Route::Found(Operation::Filesystems)),
            ("POST", "/api/v1/file-systems", Route::WrongMethod("GET")),
            ("GET", "/api/v1/filesystems", Route::WrongMethod("POST")),
            ("DELETE", "/api/v1/filesystems/x", Route::Found(Operation::DeleteFilesystem("x"))),
            ("DELETE", "/api/v1/file-systems/x", Route::Nowhere),
            ("GET", "/api/v1/firewall-rulesets/global", Route::Found(Operation::GlobalRuleset)),
            ("DELETE", "/api/v1/firewall-rulesets/global", Route::WrongMethod("GET, PATCH")),
            ("PUT", "/api/v1/firewall-rulesets/x", Route::WrongMethod("GET, PATCH, DELETE")),
            ("GET", "/instances", Route::Nowhere),
            ("GET", "/api/v1/instances/a/b", Route::Nowhere),
        ];
        for (method, path, expected) in cases {
            assert_eq!(route(method, path), expected, "{method} {path}");
        }
    }
}
