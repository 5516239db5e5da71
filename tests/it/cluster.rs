//! A private server: whose it is, where it listens, and that nothing of it stays.

use std::path::PathBuf;

use tidings::cluster::{Cluster, Mode, Options};

use crate::harness::connect;

async fn shown(cluster: &Cluster, setting: &str) -> String {
    let client = connect(&cluster.url("postgres")).await;
    client.query_one(&format!("show {setting}"), &[]).await.unwrap().get(0)
}

fn home(cluster: &Cluster) -> PathBuf {
    cluster.with_dir(std::path::Path::to_path_buf).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_server_is_on_loopback_alone_and_nothing_of_it_stays() {
    let cluster = Cluster::start(&Options::test()).unwrap();
    let other = Cluster::start(&Options::test()).unwrap();
    assert_ne!(cluster.url("postgres"), other.url("postgres"), "two at once are two servers");
    assert_ne!(home(&cluster), home(&other));
    assert_eq!(shown(&cluster, "listen_addresses").await, "127.0.0.1");

    // A cluster that was stopped comes back where it was.
    let url = cluster.url("postgres");
    cluster.stop(Mode::Immediate).unwrap();
    assert!(!cluster.is_listening().unwrap());
    cluster.start_again().unwrap();
    assert_eq!(cluster.url("postgres"), url);
    connect(&url).await;

    let gone = home(&cluster);
    drop(cluster);
    assert!(!gone.exists(), "{} stays", gone.display());
    connect(&other.url("postgres")).await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_private_server_does_not_run_as_root() {
    use std::os::unix::fs::MetadataExt;

    let cluster = Cluster::start(&Options::test()).unwrap();
    let data = PathBuf::from(shown(&cluster, "data_directory").await);
    let pid = std::fs::read_to_string(data.join("postmaster.pid")).unwrap();
    let pid = pid.lines().next().unwrap();
    let owner = std::fs::metadata(format!("/proc/{pid}")).unwrap().uid();
    assert_ne!(owner, 0, "process {pid} is root's");
    assert_eq!(std::fs::metadata(&data).unwrap().mode() & 0o077, 0, "others may look into it");
}
