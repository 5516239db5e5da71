//! Tokens: what is let in, and what is refused.
