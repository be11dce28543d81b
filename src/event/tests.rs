use time::OffsetDateTime;

use super::*;

#[test]
fn assembled_fields_come_back_as_they_were() {
    let event = Assembler::new("order-1", "OrderPlaced")
        .data(b"{\"total\":3}")
        .meta(b"{}")
        .text(Text::Id, "e1")
        .text(Text::Timestamp, "2026-11-24T10:00:00Z")
        .build(Kind::Event, Ordinal::new(1, 2), 7)
        .unwrap();
    assert_eq!(
        (event.stream(), event.event_type(), event.index(), event.next_index()),
        ("order-1", "OrderPlaced", 7, 8)
    );
    assert_eq!((event.data(), event.meta(), event.text(Text::Id)), (&b"{\"total\":3}"[..], &b"{}"[..], "e1"));
    assert_eq!(event.text(Text::Correlation), "");
    assert_eq!(event.timestamp().unwrap().unix_timestamp(), 1_795_514_400);
    assert_eq!(event.size(), 11 + 11 + 2);
}

#[test]
fn the_context_of_a_record_comes_back_as_it_was() {
    let data = Format { content: ContentType::Binary, encoding: Encoding::Brotli };
    let meta = Format { content: ContentType::Json, encoding: Encoding::Identity };
    let event = Assembler::new("order-1", "T")
        .header("tenant", b"a")
        .data(b"\x01")
        .header("", b"")
        .header("tenant", b"b\xff")
        .formats(data, meta)
        .tombstone()
        .build(Kind::Event, Ordinal::default(), 0)
        .unwrap();
    let headers: Vec<_> = event.headers().collect();
    assert_eq!(headers, [("tenant", &b"a"[..]), ("", b""), ("tenant", b"b\xff")]);
    assert_eq!((event.headers().get("tenant"), event.headers().get("x")), (Some(&b"b\xff"[..]), None));
    assert_eq!((event.data_format(), event.meta_format(), event.data()), (data, meta, &b"\x01"[..]));
    assert!(event.is_tombstone());
    let plain = Assembler::new("order-1", "T").build(Kind::Event, Ordinal::default(), 0).unwrap();
    assert_eq!((plain.data_format(), plain.headers().count(), plain.is_tombstone()), (Format::default(), 0, false));
}

#[test]
fn every_format_fits_one_byte() {
    for content in [ContentType::Unknown, ContentType::Json, ContentType::Text, ContentType::Binary] {
        for encoding in [Encoding::Identity, Encoding::Deflate, Encoding::Gzip, Encoding::Brotli] {
            let format = Format { content, encoding };
            assert_eq!(body::PackedFormat::new(format).get(), format);
        }
    }
}

/// Returns an event's time as ticks and as text.
fn time_of(assembler: Assembler) -> (Option<i64>, String) {
    let event = assembler.build(Kind::Event, Ordinal::default(), 0).unwrap();
    assert_eq!(event.timestamp().map(EventTime::from), event.time());
    (event.time().map(EventTime::ticks), event.time_text().into_owned())
}

#[test]
fn a_time_is_text_as_read_or_a_number_that_is_written_on_request() {
    let event = || Assembler::new("order-1", "T");
    let text = |text: &str| time_of(event().text(Text::Timestamp, text));
    assert_eq!(text("1970-01-01T01:00:00.12+01:00"), (Some(1_200_000), "1970-01-01T01:00:00.12+01:00".to_owned()));
    assert_eq!(text("yesterday"), (None, "yesterday".to_owned()));
    assert_eq!(time_of(event()), (None, String::new()));
    let number = |time| time_of(event().time(time));
    assert_eq!(number(EventTime::from_millis(1_500)), (Some(15_000_000), "1970-01-01T00:00:01.5Z".to_owned()));
    assert_eq!(number(EventTime::from_ticks(-1)), (Some(-1), "1969-12-31T23:59:59.9999999Z".to_owned()));
    // The last moment of .NET, and one between two ticks.
    let last = OffsetDateTime::parse("9999-12-31T23:59:59.999999999Z", &Rfc3339).unwrap();
    assert_eq!(number(last.into()), (Some(2_534_023_007_999_999_999), "9999-12-31T23:59:59.9999999Z".to_owned()));
}

#[test]
fn fields_that_cannot_be_an_event_give_the_reason() {
    let event =
        |stream: &str, index| Assembler::new(stream, "T").build(Kind::Event, Ordinal::default(), index).unwrap_err();
    assert_eq!(event("", 0), BadEvent::NoStream);
    assert_eq!(event("a-1", -1), BadEvent::NegativeIndex(-1));
    assert_eq!(event(&"a".repeat(65_536), 0), BadEvent::TooLong("stream name"));
    let not_utf8 = EventBuilder::new(Bytes::from_static(b"a-\xff")).text(Text::Stream, 0, 3);
    assert_eq!(not_utf8.build(Kind::Event, Ordinal::default(), 0).unwrap_err(), BadEvent::NotUtf8("stream name"));
    let long = Assembler::new("a-1", "T").header(&"n".repeat(65_536), b"").build(Kind::Event, Ordinal::default(), 0);
    assert_eq!(long.unwrap_err(), BadEvent::TooLong("header name"));
}

#[test]
fn s14_the_greatest_index_is_refused_because_none_follows_it() {
    for kind in [Kind::Event, Kind::Unfold, Kind::Placeholder] {
        let refused = Assembler::new("a-1", "T").build(kind, Ordinal::default(), i64::MAX);
        assert_eq!(refused.unwrap_err(), BadEvent::NoNextIndex);
    }
    let event = Assembler::new("a-1", "T").build(Kind::Event, Ordinal::default(), i64::MAX - 1).unwrap();
    assert_eq!(event.next_index(), i64::MAX);
}

#[test]
fn an_excluded_event_keeps_its_place_if_it_had_one() {
    let excluded = [Kind::Event, Kind::Unfold, Kind::Malformed].map(|kind| {
        let mut event = Assembler::new("order-1", "T").build(kind, Ordinal::new(3, 0), 7).unwrap();
        event.exclude();
        (event.kind(), event.stream().to_owned(), event.at().major)
    });
    assert_eq!(excluded, ["order-1", "", ""].map(|stream| (Kind::Placeholder, stream.to_owned(), 3)));
}

#[test]
fn l4_a_stored_write_position_belongs_to_all_that_identifies_its_stream() {
    let stored = |indexes: Indexes, tranche: &str| indexes.stored_name(&TrancheId::new(tranche), "till-1").into_owned();
    assert_eq!(stored(Indexes::Dense, "a.jsonl"), "till-1");
    assert_eq!(stored(Indexes::Dense, "a.jsonl"), stored(Indexes::Dense, "b.jsonl"));
    assert_ne!(stored(Indexes::Sparse, "a.jsonl"), stored(Indexes::Sparse, "b.jsonl"));
    assert!(stored(Indexes::Sparse, "a.jsonl").ends_with("till-1"));
}

#[test]
fn names_split_at_the_first_dash() {
    let split: Vec<_> = ["order-1-2", "-x-1", "order", ""].map(|name| (category(name), stream_id(name))).into();
    assert_eq!(split, [("order", "1-2"), ("x-1", "x-1"), ("order", ""), ("", "")]);
}
