//! The daemon: the pipelines that one process runs, and the directory that holds their data.

pub mod data_dir;
