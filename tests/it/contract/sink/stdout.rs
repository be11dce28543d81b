//! Sink `stdout`, on a writer of the test.

use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex};

use propulsiond::connector::stdout::{Settings, StdoutSink};

use super::*;

#[derive(Default)]
struct Out {
    bytes: Vec<u8>,
    writes: usize,
    broken: bool,
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Out>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut out = self.0.lock().unwrap();
        if out.broken {
            return Err(io::ErrorKind::StorageFull.into());
        }
        out.writes += 1;
        out.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Stdout {
    out: Shared,
    sink: StdoutSink,
}

fn stdout() -> Stdout {
    let out = Shared::default();
    Stdout { sink: StdoutSink::to(&Settings::default(), Box::new(out.clone())), out }
}

impl Harness for Stdout {
    fn sink(&self) -> &dyn Sink {
        &self.sink
    }

    fn seen(&self) -> Vec<(String, i64)> {
        read_lines(std::str::from_utf8(&self.out.0.lock().unwrap().bytes).unwrap())
    }

    fn break_down(&self) {
        self.out.0.lock().unwrap().broken = true;
    }

    fn repair(&self) {
        self.out.0.lock().unwrap().broken = false;
    }
}

mod contract {
    super::super::sink_contract!(super::stdout());
}

#[tokio::test]
async fn the_lines_of_a_group_leave_in_one_write() {
    let stdout = stdout();
    let values = vec![Value::from("a string, as it is"), Value::Int(7)];
    write_all(&stdout.sink, &[emitted("a-1", 0, values), events("b-1", 0..1)]).await;
    let out = stdout.out.0.lock().unwrap();
    let text = std::str::from_utf8(&out.bytes).unwrap();
    assert_eq!(out.writes, 1);
    assert_eq!(
        text,
        "a string, as it is\n7\n{\"stream\":\"b-1\",\"index\":0,\"type\":\"Placed\",\"data\":{\"total\":1}}\n"
    );
}

#[tokio::test]
async fn s19_a_closed_pipe_is_unusable_for_every_event() {
    let (reader, writer) = io::pipe().unwrap();
    let sink = StdoutSink::to(&Settings::default(), Box::new(writer));
    write_all(&sink, &[events("a-1", 0..1)]).await;
    drop(reader);
    let results = write(&sink, &[events("a-1", 1..2), emitted("a-1", 2, vec![])]).await;
    let error = results[0].as_ref().unwrap_err();
    assert_eq!(error.kind(), HandlerErrorKind::Unusable);
    assert_eq!(error.message(), "standard output was closed by its reader");
    assert_eq!(results[1], Ok(Written::All), "it has no effects");
}

#[tokio::test]
async fn a_full_pipe_delays_the_write_and_not_its_caller() {
    let (mut reader, writer) = io::pipe().unwrap();
    let sink = StdoutSink::to(&Settings::default(), Box::new(writer));
    let long = "x".repeat(1 << 20);
    let group = [emitted("a-1", 0, vec![Value::from(long.as_str())])];
    let mut held = sink.write(&group);
    assert!(futures_util::poll!(&mut held).is_pending());
    // A cancelled write with half of its line in the pipe is completed before the next line.
    drop(held);
    let read = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text)
    });
    write_all(&sink, &[emitted("a-1", 0, vec![Value::from("end")])]).await;
    drop(sink);
    assert_eq!(read.await.unwrap().unwrap(), format!("{long}\nend\n"));
}
