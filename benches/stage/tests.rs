//! The floors and the whole run, small.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::time::Duration;

use tidings::bench::{Figures, Measured, Processes, Shape, Stream, measure};

use crate::plan::{Case, Contender, Plan};
use crate::plot::{Bars, bars};
use crate::report::Medians;
use crate::ws_floor::{WsFloor, serve};
use crate::{Conduct, conduct};

fn small(topics: usize, rate: Option<u32>) -> Shape {
    Shape::Stream(Stream {
        listeners: 4,
        topics,
        rate,
        lasts: Duration::from_millis(200),
        warm_up: Duration::from_millis(50),
        bytes: 300,
        batch: 1,
        publishers: 2,
        window: 16,
    })
}

fn wanted(out: PathBuf) -> Conduct {
    Conduct {
        rounds: 1,
        seconds: 0.2,
        only: None,
        contenders: Vec::new(),
        small: 200,
        growth: false,
        log_rows_max: 0,
        program: None,
        out,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_floor_of_sockets_delivers_everything_it_is_fed() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let floor = WsFloor::new(listener.local_addr().unwrap()).unwrap();
    std::thread::spawn(move || serve(&listener));
    for shape in [small(1, Some(200)), small(4, None)] {
        let figures = measure(&floor, &shape, &Processes::default(), &|_| {}).await.unwrap();
        assert_eq!(figures.get("lost"), Some(0.0), "{shape}");
        assert!(figures.get("deliveries_per_s").unwrap() > 100.0, "{shape}");
    }
}

#[test]
#[ignore = "runs until it is killed; another test starts it as a process"]
fn a_floor_for_others() {
    crate::ws_floor::run().unwrap();
}

/// Everything that `make bench` starts, with a hundredth of the load, and the pages that come of it.
#[test]
fn a_whole_run_measures_every_contender_and_writes_its_pages() {
    let out = std::env::temp_dir().join(format!("tidings-stage-{}", std::process::id()));
    let only = |only: &str| Conduct { only: Some(only.to_owned()), ..wanted(out.clone()) };
    conduct::run(&only("unicast 5 at 25/s")).unwrap();
    let page = std::fs::read_to_string(out.join("run/README.md")).unwrap();
    for contender in ["ws-floor", "pg-floor", "tidings", "tidings-3"] {
        assert!(page.contains(&format!(" {contender} |")), "{contender}: {page}");
    }
    assert!(page.contains("| lost | 0 | 0 | 0 | 0 |"), "{page}");
    assert!(page.contains("3 replicas: p99_ms, × pg-floor"), "{page}");
    let round = std::fs::read_to_string(out.join("run/round-1.json")).unwrap();
    let round: serde_json::Value = serde_json::from_str(&round).unwrap();
    assert_eq!(round["measured"].as_array().unwrap().len(), 4);
    assert!(out.join("run/unicast-p50.svg").is_file());
    let growth = Conduct { growth: true, log_rows_max: 100_000, ..only("log of 100000 rows") };
    conduct::run(&growth).unwrap();
    assert!(out.join("growth/README.md").is_file());
    std::fs::remove_dir_all(&out).unwrap();
}

#[test]
fn every_shape_of_a_run_has_a_name_of_its_own() {
    let plan = Plan::new(&Conduct { small: 1, ..wanted(PathBuf::new()) });
    let mut names: Vec<String> = plan.cases().iter().map(Case::name).collect();
    names.sort();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all, "{names:?}");
}

#[test]
fn medians_are_taken_across_rounds_of_the_same_contender() {
    let measured = |contender: Contender, value: f64| {
        let mut figures = Figures::default();
        figures.add("p50_ms", value);
        Measured { contender: contender.name(), shape: "a".to_owned(), figures }
    };
    let (ours, floor) = (Contender::Tidings(1), Contender::PgFloor);
    let round = |a, b| vec![measured(ours, a), measured(floor, b)];
    let medians = Medians::of(&[round(3.0, 9.0), round(1.0, 7.0), round(2.0, 8.0)]);
    assert_eq!(medians.get("a", ours, "p50_ms"), Some(2.0));
    assert_eq!(medians.get("a", floor, "p50_ms"), Some(8.0));
    assert_eq!(medians.get("b", floor, "p50_ms"), None);
}

#[test]
fn a_plot_has_a_bar_for_each_value() {
    let series = vec![("a".to_owned(), vec![1.0, 2.0]), ("b".to_owned(), vec![0.0, 4.0])];
    let plot = Bars { title: "t".to_owned(), labels: vec!["x".to_owned(), "y".to_owned()], series };
    let svg = bars(&plot);
    assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
    // One behind everything, one a name, one a value.
    assert_eq!(svg.matches("<rect").count(), 1 + 2 + 4);
    assert!(
        bars(&Bars { title: String::new(), labels: Vec::new(), series: Vec::new() })
            .contains("svg")
    );
}
