//! Buckets are the same for ever: a request's key decides its version.

use starling_raft::state::bucket::Bucket;

/// Computed with the reference xxHash library and 128-bit integers elsewhere.
#[test]
fn keys_fall_into_the_buckets_that_another_implementation_gives() {
    for (salt, key, bucket) in [
        ("exp-1", "1", 220_241),
        ("exp-1", "user-1", 190_656),
        ("exp-1", "user-2", 828_750),
        ("exp-1", "日本語", 623_126),
        ("checkout:v3", "1", 224_346),
        ("checkout:v3", "user-1", 381_249),
        ("checkout:v3", "alice@example.com", 581_978),
        ("checkout:v3", "日本語", 865_666),
    ] {
        assert_eq!(Bucket::of(salt.as_bytes(), key.as_bytes()).get(), bucket, "{salt} {key}");
    }
}

#[test]
fn the_smallest_and_the_largest_hash_fall_into_the_first_and_the_last_bucket() {
    assert_eq!(Bucket::of_hash(0).get(), 0);
    assert_eq!(Bucket::of_hash(u64::MAX).get(), 999_999);
    assert_eq!(Bucket::of_hash(1 << 63).get(), 500_000);
}

#[test]
fn a_million_is_no_bucket() {
    assert_eq!(Bucket::new(999_999).map(Bucket::get), Some(999_999));
    assert_eq!(Bucket::new(1_000_000), None);
}

#[test]
fn salt_and_key_do_not_run_into_each_other() {
    assert_ne!(Bucket::of(b"ab", b"c"), Bucket::of(b"a", b"bc"));
}
