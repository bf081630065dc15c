//! Tables of cases for policies.
