#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| lb_userspace::fuzzing::etcd_answer(bytes));
