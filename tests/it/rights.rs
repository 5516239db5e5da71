//! The roles of `sql/roles.sql`: each may do what it is for, and nothing else.
