//! The stored bytes, pinned; and what is refused.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;

fn log_id(term: u64, node_id: u64, index: u64) -> LogIdOfStarling {
    LogId::new(LeaderId { term, node_id }, index)
}

fn normal(index: u64, bytes: Vec<u8>) -> EntryOfStarling {
    Entry { log_id: log_id(3, 2, index), payload: EntryPayload::Normal(EnvelopeBytes(Bytes::from(bytes))) }
}

fn membership() -> Membership<u64, BasicNode> {
    let configs = vec![BTreeSet::from([1]), BTreeSet::from([1, 2])];
    let nodes =
        BTreeMap::from([(1, BasicNode::new("a:1")), (2, BasicNode::new("b:2")), (9, BasicNode::new(""))]);
    Membership::new(configs, nodes).unwrap()
}

fn only_chunk(entry: &EntryOfStarling) -> (String, String) {
    let chunks = encode_entry(entry);
    assert_eq!(chunks.len(), 1);
    (hex::encode(&chunks[0].0), hex::encode(&chunks[0].1))
}

fn read_back(chunks: &[(Vec<u8>, Vec<u8>)]) -> Result<EntryOfStarling, FormatError> {
    let chunks: Result<Vec<_>, _> = chunks.iter().map(|(key, value)| decode_chunk(key, value)).collect();
    join_chunks(&chunks?)
}

#[test]
fn single_values_have_these_bytes_for_ever() {
    let vote = Vote::new_committed(7, 2);
    assert_eq!(hex::encode(encode_vote(&vote)), "016819f37b010000000000000007000000000000000201");
    assert_eq!(decode_vote(&encode_vote(&vote)), Ok(vote));

    let purged = log_id(6, 1, 900);
    let stored = encode_log_id(Meta::Purged, &purged);
    assert_eq!(hex::encode(&stored), "0101db453f02000000000000000600000000000000010000000000000384");
    assert_eq!(decode_log_id(Meta::Purged, &stored), Ok(purged));

    let stored = encode_marker(&[0xAB; 16]);
    assert_eq!(hex::encode(&stored), "01924f884f04abababababababababababababababab");
    assert_eq!(decode_marker(&stored), Ok([0xAB; 16]));

    assert_eq!(hex::encode(encode_origin(1)), "01637fffdb050000000000000001");
    assert_eq!(decode_origin(&encode_origin(1)), Ok(1));
}

#[test]
fn entries_have_these_bytes_for_ever() {
    let blank = Entry { log_id: log_id(3, 2, 5), payload: EntryPayload::Blank };
    let (key, value) = only_chunk(&blank);
    assert_eq!(key, "0100000000000000050000");
    assert_eq!(value, "019b690b220000000000000005000000000000000300000000000000020000000100010000000100");
    assert_eq!(read_back(&encode_entry(&blank)), Ok(blank));

    let hello = normal(6, b"hello".to_vec());
    let (key, value) = only_chunk(&hello);
    assert_eq!(key, "0100000000000000060000");
    assert_eq!(
        value,
        "013df98369000000000000000600000000000000030000000000000002000000060001000000060168656c6c6f"
    );
    assert_eq!(read_back(&encode_entry(&hello)), Ok(hello));

    let change = Entry { log_id: log_id(3, 2, 7), payload: EntryPayload::Membership(membership()) };
    let (key, value) = only_chunk(&change);
    assert_eq!(key, "0100000000000000070000");
    assert_eq!(
        value,
        "01012839ba0000000000000007000000000000000300000000000000020000005300010000005302\
         00000002000000010000000000000001000000020000000000000001000000000000000200000003\
         000000000000000100000003613a31000000000000000200000003623a32000000000000000900000000"
    );
    assert_eq!(read_back(&encode_entry(&change)), Ok(change));
}

#[test]
fn an_entry_of_a_mebibyte_is_cut_into_values_that_sled_keeps_in_its_log() {
    let bytes: Vec<u8> = (0..1 << 20).map(|position: u32| (position % 251) as u8).collect();
    let large = normal(8, bytes);
    let chunks = encode_entry(&large);
    assert_eq!(chunks.len(), 259);
    assert!(chunks.iter().all(|(_, value)| value.len() <= 4096));
    assert_eq!(read_back(&chunks), Ok(large));
}

#[test]
fn keys_sort_by_index_then_chunk() {
    let mut keys = [log_key(256, 0), log_key(1, 300), log_key(255, 9), log_key(1, 2)];
    keys.sort();
    let parsed: Vec<_> = keys.iter().map(|key| parse_log_key(key).unwrap()).collect();
    assert_eq!(parsed, [(1, 2), (1, 300), (255, 9), (256, 0)]);
}

#[test]
fn any_changed_byte_of_a_chunk_is_noticed() {
    let (key, value) = encode_entry(&normal(6, b"hello".to_vec())).remove(0);
    for position in 0..value.len() {
        let mut changed = value.clone();
        changed[position] ^= 1;
        assert!(decode_chunk(&key, &changed).is_err(), "byte {position}");
    }
}

#[test]
fn a_chunk_under_another_key_is_noticed() {
    let (_, value) = encode_entry(&normal(6, b"hello".to_vec())).remove(0);
    assert_eq!(
        decode_chunk(&log_key(7, 0), &value),
        Err(FormatError::Misplaced { what: "a chunk's index", found: 6, expected: 7 })
    );
    assert_eq!(
        decode_chunk(&log_key(6, 1), &value),
        Err(FormatError::Misplaced { what: "a chunk's number", found: 0, expected: 1 })
    );
}

#[test]
fn a_missing_chunk_is_noticed() {
    let mut chunks = encode_entry(&normal(6, vec![7; 10_000]));
    assert_eq!(chunks.len(), 3);
    chunks.remove(1);
    assert!(read_back(&chunks).is_err());
}

#[test]
fn a_value_of_a_later_format_is_refused_by_its_version() {
    let mut stored = encode_vote(&Vote::new(1, 1));
    stored[0] = 2;
    assert_eq!(decode_vote(&stored), Err(FormatError::Version { what: "the vote", found: 2 }));
}

#[test]
fn arbitrary_bytes_are_an_error_and_never_a_panic() {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    for length in 0..200 {
        let bytes: Vec<u8> = (0..length)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
            .collect();
        assert!(decode_vote(&bytes).is_err());
        assert!(decode_chunk(&log_key(1, 0), &bytes).is_err());
        assert!(decode_log_id(Meta::Purged, &bytes).is_err());
        // Past the checksum as well.
        assert!(decode_chunk(&log_key(1, 0), &seal(&bytes)).is_err());
        assert!(decode_vote(&seal(&bytes)).is_err());
    }
}

#[test]
fn an_entry_beyond_the_limit_is_refused() {
    let too_large = normal(9, vec![0; ENTRY_BYTES_MAX]);
    assert!(matches!(check_entry_size(&too_large), Err(FormatError::EntryTooLarge { index: 9, .. })));
}
