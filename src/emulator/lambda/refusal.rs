//! Refusals in the form of the API: a status and a code of the document. Statuses that the document lacks are marked.

use serde_json::{Value, json};

/// Why a call is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: u16,
    code: &'static str,
    message: String,
    suggestion: &'static str,
}

impl Refusal {
    fn new(status: u16, code: &'static str, message: impl Into<String>, suggestion: &'static str) -> Self {
        Self { status, code, message: message.into(), suggestion }
    }

    /// The answer's body.
    pub(super) fn body(&self) -> Value {
        json!({"error": {"code": self.code, "message": self.message, "suggestion": self.suggestion}})
    }

    pub(super) fn unauthorized() -> Self {
        let message = "API key was invalid, expired, or deleted.";
        Self::new(401, "global/invalid-api-key", message, "Check your API key or create a new one, then try again.")
    }

    pub(super) fn inactive() -> Self {
        Self::new(
            403,
            "global/account-inactive",
            "Your account is inactive.",
            "Verify your email address and payment method.",
        )
    }

    pub(super) fn no_address() -> Self {
        Self::new(
            403,
            "global/invalid-address",
            "Your billing address is invalid.",
            "Make sure your billing address is valid.",
        )
    }

    /// The document declares 400 for most calls with a body, but not for restart, terminate and the changes of rules.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(400, "global/invalid-parameters", message, "Check the parameters of the request.")
    }

    pub(super) fn missing(what: &str) -> Self {
        Self::new(404, "global/object-does-not-exist", format!("{what} does not exist."), "Check its id and try again.")
    }

    pub(super) fn quota() -> Self {
        Self::new(400, "global/quota-exceeded", "Quota exceeded.", "Contact Support to increase your quota.")
    }

    pub(super) fn duplicate(name: &str) -> Self {
        Self::new(400, "global/duplicate", format!("The name {name} is taken."), "Choose another name.")
    }

    pub(super) fn no_capacity() -> Self {
        let message = "Not enough capacity to fulfill launch request.";
        Self::new(400, "instance-operations/launch/insufficient-capacity", message, "Try another region or type.")
    }

    pub(super) fn wrong_region(filesystem: &str) -> Self {
        let message = format!("The file system {filesystem} is in another region.");
        Self::new(400, "instance-operations/launch/file-system-in-wrong-region", message, "Launch in its region.")
    }

    pub(super) fn filesystem_in_use() -> Self {
        let suggestion = "Terminate the instances that mount it.";
        Self::new(400, "filesystems/filesystem-in-use", "The file system is in use.", suggestion)
    }

    pub(super) fn ruleset_in_use() -> Self {
        let message = "Firewall ruleset is in use by one or more instances.";
        let suggestion = "Terminate all instances that are using the ruleset before deleting it.";
        Self::new(400, "firewall-rulesets/firewall-ruleset-in-use", message, suggestion)
    }

    /// Two changes of a ruleset at once.
    pub(super) fn conflict() -> Self {
        Self::new(409, "global/internal-error", "An internal server error occurred.", "Try again later.")
    }

    /// Not in 1.8.3; the code is that of an older document.
    pub(super) fn unknown() -> Self {
        Self::new(500, "global/unknown", "An unknown error occurred.", "Try again later.")
    }

    /// Not in 1.8.3; the vendor's pages name the code.
    pub(super) fn upstream() -> Self {
        Self::new(503, "provider/internal-unavailable", "The provider is unavailable.", "Try again later.")
    }

    /// Not in 1.8.3, and its code is a guess.
    pub(super) fn too_many() -> Self {
        Self::new(429, "global/too-many-requests", "Too many requests.", "Wait before you try again.")
    }

    /// The same with another status.
    pub(super) fn with_status(self, status: u16) -> Self {
        Self { status, ..self }
    }
}
