//! The stream as bytes: what is written, what a newer sender adds, and what nonsense does.

use insta::assert_snapshot;
use proptest::prelude::{Just, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::field::Writer;
use super::{Change, Digest, Figure, Frame, FrameDecoder, Hello, MAX_NAME_BYTES, MAX_PAYLOAD_BYTES, Malformed, State};
use crate::model::Region;

fn hello() -> Hello {
    Hello {
        version: 1,
        oldest: 1,
        name: "east".to_owned(),
        region: Region::new("us-east-1"),
        epoch: 0x0123_4567_89ab_cdef,
        every_ms: 200,
        block_bytes: 256,
        sample_every: 4,
    }
}

fn bytes(frames: &[Frame]) -> Vec<u8> {
    let mut out = Vec::new();
    frames.iter().for_each(|frame| frame.encode(&mut out));
    out
}

/// All frames of a stream that comes in pieces of this many bytes.
fn decoded(stream: &[u8], piece: usize) -> Result<Vec<Frame>, Malformed> {
    let mut decoder = FrameDecoder::default();
    let mut frames = Vec::new();
    for piece in stream.chunks(piece.max(1)) {
        decoder.push(piece);
        while let Some(frame) = decoder.frame()? {
            frames.push(frame);
        }
    }
    Ok(frames)
}

/// Recorded bytes: agents of different versions talk to each other.
#[test]
fn the_bytes_are_stable_across_versions() {
    let state = State {
        sent_us: 1_000_000,
        changes: vec![
            Change { number: Figure::Serving.number(), value: Some(1) },
            Change { number: Figure::KvUsagePpm.number(), value: None },
        ],
    };
    let digest = Digest { begins: true, ends: false, held: vec![1, 0xdead_beef], gone: vec![2] };
    let heartbeat = State { sent_us: 1, changes: Vec::new() };
    let shown = [Frame::Hello(hello()), Frame::State(state), Frame::Digest(digest), Frame::State(heartbeat)]
        .map(|frame| bytes(&[frame]).iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    assert_snapshot!(shown.join("\n"), @r"
    012702010401070465617374090975732d656173742d310aef9bafcdf8acd191010cc8010e80021004
    020802c0843d04021c00
    03120201050801000000efbeadde070402000000
    02020201
    ");
}

#[test]
fn what_we_do_not_know_is_skipped() {
    let mut stream = Vec::new();
    let mut newer = Writer::default();
    newer.bytes(1, b"whatever");
    newer.close(77, &mut stream);
    Writer::default().close(u32::MAX, &mut stream);
    let mut payload = Writer::default();
    payload.bytes(9_000, b"more");
    payload.number(1, 7);
    payload.number(40, 3);
    payload.bytes(Figure::Running.number(), b"of another type");
    payload.close(2, &mut stream);
    let mut payload = Writer::default();
    payload.number(3, 5);
    payload.bytes(1, b"flags");
    payload.hashes(2, &[9]);
    payload.close(3, &mut stream);
    let frames = [
        Frame::State(State { sent_us: 7, changes: vec![Change { number: 40, value: Some(2) }] }),
        Frame::Digest(Digest { held: vec![9], ..Digest::default() }),
    ];
    assert_eq!(decoded(&stream, 1), Ok(frames.to_vec()));
}

#[test]
fn what_makes_no_sense_is_told_apart() {
    let frame = |kind: u32, fill: fn(&mut Writer)| {
        let (mut payload, mut out) = (Writer::default(), Vec::new());
        fill(&mut payload);
        payload.close(kind, &mut out);
        out
    };
    let cases = [
        (vec![0xff; 20], Malformed::Number),
        (vec![2, 0x81, 0x80, 0x04], Malformed::TooLong(65_537)),
        (vec![9, 0x81, 0x80, 0x04], Malformed::TooLong(65_537)),
        (vec![2, 1, 2], Malformed::Short),
        (vec![2, 3, 3, 200, 1], Malformed::Short),
        (frame(1, |hello| hello.bytes(3, b"\xff")), Malformed::Name),
        (frame(1, |hello| hello.bytes(4, &[b'x'; MAX_NAME_BYTES + 1])), Malformed::Name),
        (frame(3, |digest| digest.bytes(2, &[0; 5])), Malformed::Hashes(5)),
    ];
    for (bad, expected) in cases {
        let stream = [bytes(&[Frame::Hello(hello())]), bad.clone()].concat();
        assert_eq!(decoded(&stream, 3), Err(expected), "{bad:?}");
    }
    let mut decoder = FrameDecoder::default();
    decoder.push(&[0xff; 20]);
    assert_eq!((decoder.frame(), decoder.held_bytes()), (Err(Malformed::Number), 0));
    decoder.push(&bytes(&[Frame::Hello(hello())]));
    assert_eq!((decoder.frame(), decoder.held_bytes()), (Err(Malformed::Number), 0), "there is no way back");
}

fn frames() -> impl Strategy<Value = Frame> {
    let hashes = || prop::collection::vec(any::<u32>(), 0..40);
    // One value in 2^64 is not told exactly, and no figure comes near it.
    let change = (2_u32..60, prop::option::of(0..u64::MAX)).prop_map(|(number, value)| Change { number, value });
    prop_oneof![
        (any::<u32>(), any::<u32>(), ".{0,20}", "[a-z0-9-]{0,20}", any::<[u64; 4]>()).prop_map(
            |(version, oldest, name, region, [epoch, every_ms, block_bytes, sample_every])| Frame::Hello(Hello {
                version,
                oldest,
                name,
                region: Region::new(&region),
                epoch,
                every_ms,
                block_bytes,
                sample_every,
            })
        ),
        (any::<u64>(), prop::collection::vec(change, 0..20))
            .prop_map(|(sent_us, changes)| Frame::State(State { sent_us, changes })),
        (any::<bool>(), any::<bool>(), hashes(), hashes())
            .prop_map(|(begins, ends, held, gone)| Frame::Digest(Digest { begins, ends, held, gone })),
    ]
}

proptest! {
    #[test]
    fn frames_come_back_as_they_were_sent_however_they_are_cut(sent in prop::collection::vec(frames(), 0..8), piece in 1_usize..200) {
        prop_assert_eq!(decoded(&bytes(&sent), piece), Ok(sent));
    }

    /// Any bytes at all: an answer or an error, never a panic, and bounded memory.
    #[test]
    fn nonsense_breaks_nothing(
        start in prop::collection::vec(frames(), 0..3),
        noise in prop::collection::vec(prop_oneof![4 => any::<u8>(), 2 => 0_u8..4, 1 => Just(0xff)], 0..600),
        flip in any::<prop::sample::Index>(),
        piece in 1_usize..100,
    ) {
        let mut stream = bytes(&start);
        if !stream.is_empty() {
            let at = flip.index(stream.len());
            stream[at] ^= 1 << (at % 8);
        }
        stream.extend(noise);
        let mut decoder = FrameDecoder::default();
        for piece in stream.chunks(piece) {
            decoder.push(piece);
            while let Ok(Some(_)) = decoder.frame() {}
            prop_assert!(decoder.held_bytes() <= MAX_PAYLOAD_BYTES + 20 + piece.len());
        }
    }
}
