#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| propulsiond_fuzz::spec_toml(input));
