#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| murre_fuzz::nodes(bytes));
