//! What a test that replays a corpus tries beside the input itself. Shared by those tests.

/// Checks `input`, also cut short anywhere and with each of its bits turned.
pub(crate) fn with_damage(input: &[u8], check: fn(&[u8])) {
    check(input);
    let mut turned = input.to_vec();
    for at in 0..input.len() {
        check(&input[..at]);
        for bit in 0..8 {
            turned[at] ^= 1 << bit;
            check(&turned);
            turned[at] = input[at];
        }
    }
}
