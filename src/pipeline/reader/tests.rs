use async_trait::async_trait;

use super::*;
use crate::connector::memory::store::{Fault, MemoryCheckpoints, Operation};
use crate::event::Assembler;
use crate::position::{Ordinal, Position};

/// A reader of one batch, and then the end of its tranche.
struct OneBatch(Option<Batch>);

#[async_trait]
impl TrancheReader for OneBatch {
    async fn next(&mut self, _room: Room) -> Result<Next, SourceError> {
        Ok(self.0.take().map_or(Next::End, Next::Batch))
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_kept_while_the_look_up_of_its_write_positions_fails() {
    let store = MemoryCheckpoints::default();
    let mut failures = 2;
    store.inject(move |operation| {
        let fails = matches!(operation, Operation::WritePositions(_)) && failures > 0;
        failures -= i32::from(fails);
        fails.then_some(Fault::Reject)
    });
    let tranche = TrancheId::new("0");
    let key = CheckpointKey { group: "g".into(), source: "s".into(), tranche: tranche.clone() };
    let event = Assembler::new("a-1", "T").build(Kind::Event, Ordinal::new(5, 0), 0).unwrap();
    let batch = Batch { events: vec![event], resume_at: Position::Number(6), at_tail: true, lag: None };
    let (credits, granted) = mpsc::channel(2);
    let (events, mut told) = mpsc::channel(10);
    let reader = Reader {
        tranche,
        opening: 1,
        reader: Box::new(OneBatch(Some(batch))),
        filter: Arc::default(),
        known: Some((Arc::new(store), key)),
        indexes: Indexes::Dense,
        of_placeholders: false,
        follow: None,
        clock: Clock::start(),
        credits: granted,
        stop: CancellationToken::new(),
        events,
        seed: 7,
    };
    for _ in 0..2 {
        credits.try_send(Room { events: 10, bytes: 1_000 }).unwrap();
    }
    reader.run().await.unwrap();
    let mut shown = Vec::new();
    while let Some(Event::Read(Read { result, .. })) = told.recv().await {
        shown.push(match result {
            ReadResult::Batch { batch, .. } => batch.events.iter().map(|event| event.at().to_string()).collect(),
            ReadResult::Failed { failures, .. } => format!("failed {failures}"),
            ReadResult::End => "end".to_owned(),
            other => format!("{other:?}"),
        });
    }
    assert_eq!(shown, ["failed 1", "failed 2", "5.0", "end"]);
}
