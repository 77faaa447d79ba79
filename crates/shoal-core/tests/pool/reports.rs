//! What workers say besides results is heard before these.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use shoal_core::domain::host::{Host, Output};
use shoal_core::domain::voice::{Speaker, Speakers, Stream};
use shoal_core::pool::client::{Config, Pool};

use crate::Test;
use crate::client::{Client, config};

pub const TESTS: &[Test] = &[
    ("a_report_is_heard_before_the_result_is_handed_over", a_report_is_heard_before_the_result),
    ("reports_of_many_workers_arrive_whole", reports_of_many_arrive_whole),
    ("what_a_worker_reported_before_it_died_is_heard", what_was_reported_before_a_death_is_heard),
    ("lines_of_both_streams_are_passed_on_if_they_are_forwarded", lines_of_both_streams_are_passed_on),
    ("a_pool_with_a_voice_of_its_own_is_heard_there_and_not_by_others", a_voice_of_its_own_is_heard_there),
    ("nothing_is_passed_on_of_workers_that_nobody_wants_to_hear", nothing_is_passed_on_of_the_unheard),
];

/// Nothing takes that long.
const AT_MOST: Duration = Duration::from_secs(60);

type Heard = Arc<Mutex<Vec<Vec<u8>>>>;

/// A speaker, and where it keeps what it says.
fn speaker() -> (Speaker, Heard) {
    let heard = Heard::default();
    let kept = heard.clone();
    let speaker = Arc::new(move |bytes: &[u8]| {
        kept.lock().expect("no panic").push(bytes.to_vec());
        true
    });
    (speaker, heard)
}

/// Where what comes on a stream is kept.
fn listen(stream: Stream) -> Heard {
    let (speaker, heard) = speaker();
    Host::current().expect("descriptors").speak_through(stream, Some(speaker));
    heard
}

fn take(heard: &Heard) -> Vec<Vec<u8>> {
    std::mem::take(&mut heard.lock().expect("no panic"))
}

fn client(output: Output) -> Client {
    Client { pool: Pool::new(&Config { output, ..config(1) }).expect("the pool starts") }
}

fn a_report_is_heard_before_the_result() {
    let heard = listen(Stream::Report);
    let client = Client::new(1);
    assert!(!client.pool.has_news());
    for payload in [b"one".as_slice(), b"two"] {
        client.result("report", payload);
        assert!(client.pool.has_news());
        client.pool.hear(AT_MOST);
        assert_eq!(take(&heard), [payload]);
        assert!(!client.pool.has_news());
    }
}

fn reports_of_many_arrive_whole() {
    let heard = listen(Stream::Report);
    let client = Client::new(3);
    // Most are longer than a packet, so their parts come among those of others.
    let payloads: Vec<_> = (0..60u8).map(|number| vec![number; usize::from(number) * 5000 + 1]).collect();
    let inbox = client.call_all("report", payloads.clone().into_iter());
    client.outcomes(&inbox, payloads.len());
    client.pool.hear(AT_MOST);
    let mut reports = take(&heard);
    reports.sort();
    assert!(reports == payloads);
}

fn what_was_reported_before_a_death_is_heard() {
    let heard = listen(Stream::Report);
    let client = Client::new(1);
    client.death("report and die", b"farewell");
    client.pool.hear(AT_MOST);
    assert_eq!(take(&heard), [b"farewell"]);
}

fn lines_of_both_streams_are_passed_on() {
    let (out, err) = (listen(Stream::Out), listen(Stream::Err));
    let client = client(Output::Forwarded);
    client.result("print", b"a line\nand more");
    client.pool.hear(AT_MOST);
    assert_eq!((take(&out).concat(), take(&err).concat()), (b"a line\n".to_vec(), b"a line\n".to_vec()));
    client.result("print", b" of it\n");
    client.pool.hear(AT_MOST);
    assert_eq!(
        (take(&out).concat(), take(&err).concat()),
        (b"and more of it\n".to_vec(), b"and more of it\n".to_vec())
    );
}

fn a_voice_of_its_own_is_heard_there() {
    let common = [listen(Stream::Out), listen(Stream::Err), listen(Stream::Report)];
    let (speakers, own): (Vec<_>, Vec<_>) = std::iter::repeat_with(speaker).take(3).unzip();
    let speakers = Some(Speakers([0, 1, 2].map(|stream: usize| Some(speakers[stream].clone()))));
    let config = Config { output: Output::Forwarded, speakers, ..config(1) };
    let client = Client { pool: Pool::new(&config).expect("the pool starts") };
    client.result("print", b"a line\n");
    client.result("report", b"news");
    client.pool.hear(AT_MOST);
    let said: Vec<_> = own.iter().map(|heard| take(heard).concat()).collect();
    assert_eq!(said, [b"a line\n".as_slice(), b"a line\n", b"news"]);
    let death = client.death("report and die", b"farewell");
    assert!(death.words.ends_with("a line\n"));
    client.pool.hear(AT_MOST);
    assert_eq!(take(&own[2]), [b"farewell"]);
    assert!(common.iter().all(|heard| take(heard).is_empty()));
}

fn nothing_is_passed_on_of_the_unheard() {
    let err = listen(Stream::Err);
    let client = client(Output::Unheard);
    let death = client.death("mutter and die", b"second line");
    assert_eq!(&*death.words, "first line\nsecond line\nand no end");
    client.pool.hear(AT_MOST);
    assert!(take(&err).is_empty());
}
