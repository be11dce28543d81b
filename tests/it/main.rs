//! What is tested from outside: one binary, as each one relinks the package.

mod contract;
