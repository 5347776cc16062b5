//! Envelopes and codec: what comes out is what went in, or an error that says why.

use proptest::prelude::*;
use starling_raft::codec::{
    CodecError, MESSAGE_BYTES_MAX, decode_command, decode_event, decode_outcome, decode_state, encode_command,
};
use starling_raft::envelope::{CommandEnvelope, EnvelopeError, EventEnvelope, Frame, HEADER_BYTES};
use starling_raft::state::{
    Command, EventClass, FeatureLevel, LogTime, MemberCommand, NodeId, Principal, WallTime,
};

use crate::log::{drain, register, request_id};

fn envelope(command: Command) -> CommandEnvelope {
    CommandEnvelope {
        log_time: LogTime::from_micros(5),
        wall_time: WallTime::from_unix_micros(6),
        principal: Principal::local(),
        request_id: request_id(7),
        feature_level: FeatureLevel::new(1),
        class: EventClass::Telemetry,
        command,
    }
}

fn frame_of(number: u16, version: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Frame { number, version, class: EventClass::Audit, payload }.write(&mut bytes);
    bytes
}

#[test]
fn what_is_inside_is_told_without_decoding_it() {
    let bytes = envelope(drain(1_003)).encode();
    let (frame, used) = Frame::read(&bytes).unwrap();
    assert_eq!(used, bytes.len());
    assert_eq!((frame.number, frame.version, frame.class), (0x0202, 1, EventClass::Telemetry));
}

#[test]
fn an_envelope_reads_back() {
    let written = envelope(register("digits", "v1", 1));
    assert_eq!(CommandEnvelope::decode(&written.encode()), Ok(written));
}

#[test]
fn every_flipped_bit_and_every_cut_is_noticed() {
    let bytes = envelope(drain(1_003)).encode().to_vec();
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(CommandEnvelope::decode(&flipped).is_err(), "bit {bit}");
    }
    for length in 0..bytes.len() {
        let error = CommandEnvelope::decode(&bytes[..length]).unwrap_err();
        assert!(matches!(error, EnvelopeError::CutOff { found, .. } if found == length), "{error}");
    }
    let mut longer = bytes;
    longer.push(0);
    assert_eq!(CommandEnvelope::decode(&longer), Err(EnvelopeError::Leftover(1)));
}

#[test]
fn a_type_of_a_newer_binary_is_an_error_and_never_skipped() {
    let known = envelope(drain(1_003)).encode();
    let payload = &known[HEADER_BYTES..];
    let newer_type = CommandEnvelope::decode(&frame_of(0x7777, 1, payload)).unwrap_err();
    assert_eq!(
        newer_type,
        EnvelopeError::Content(CodecError::UnknownType { what: "command", number: 0x7777 })
    );
    let newer_version = CommandEnvelope::decode(&frame_of(0x0202, 2, payload)).unwrap_err();
    assert_eq!(
        newer_version.to_string(),
        "stored command of type 0x0202 has schema version 2, which this binary does not know; update starling on this node"
    );
    let event = EventEnvelope::decode(&frame_of(0xf777, 1, &[0; 64])).unwrap_err();
    assert_eq!(event, EnvelopeError::Content(CodecError::UnknownType { what: "event", number: 0xf777 }));
}

#[test]
fn bytes_left_over_inside_are_an_error() {
    let mut payload = envelope(drain(1_003)).encode()[HEADER_BYTES..].to_vec();
    payload.push(0);
    let error = CommandEnvelope::decode(&frame_of(0x0202, 1, &payload)).unwrap_err();
    assert_eq!(error.to_string(), "stored command is damaged: 1 bytes are left over");
}

#[test]
fn a_length_beyond_the_limit_is_refused_before_anything_is_allocated() {
    // A label of 2^60 bytes.
    let mut bytes = encode_command(&Command::Member(MemberCommand::SetLabels {
        node_id: NodeId::new(1),
        labels: crate::log::labels("a"),
    }))
    .to_vec();
    let map_length_at = 4 + 8;
    bytes[map_length_at] = 0x10;
    let error = decode_command(&bytes).unwrap_err();
    assert!(matches!(error, CodecError::Damaged { what: "command", .. }), "{error}");

    let mut header = frame_of(0x0202, 1, &[]);
    header[8..12].copy_from_slice(&(MESSAGE_BYTES_MAX as u32 + 1).to_be_bytes());
    assert_eq!(Frame::read(&header), Err(EnvelopeError::TooLong(MESSAGE_BYTES_MAX + 1)));
}

#[test]
fn names_are_checked_when_they_are_read() {
    let mut bytes = encode_command(&register("digits", "v1", 1)).to_vec();
    let at = bytes.windows(6).position(|window| window == b"digits").unwrap();
    bytes[at] = b' ';
    let error = decode_command(&bytes).unwrap_err();
    assert!(matches!(error, CodecError::Damaged { what: "model name", .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Random bytes behind each known number, so that decoding gets somewhere.
    #[test]
    fn no_bytes_make_decoding_panic(
        known in prop::sample::select(starling_raft::codec::known_types()),
        payload in proptest::collection::vec(prop_oneof![Just(0_u8), any::<u8>()], 0..300),
    ) {
        let (_, number, version) = known;
        let mut bytes = [number.to_be_bytes(), version.to_be_bytes()].concat();
        bytes.extend_from_slice(&payload);
        let _ = (decode_command(&bytes), decode_event(&bytes), decode_outcome(&bytes), decode_state(&bytes));
        let _ = (Frame::read(&payload), CommandEnvelope::decode(&payload));
        let frame = frame_of(number, version, &payload);
        let _ = (CommandEnvelope::decode(&frame), EventEnvelope::decode(&frame));
    }

    /// Real bytes with one byte changed.
    #[test]
    fn no_damaged_command_makes_decoding_panic(
        at in any::<prop::sample::Index>(), byte in any::<u8>(), label in "v[a-z]{1,20}"
    ) {
        let mut bytes = encode_command(&register("digits", &label, 1)).to_vec();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(command) = decode_command(&bytes) {
            prop_assert_eq!(encode_command(&command).to_vec(), bytes, "one encoding per command");
        }
    }
}
