//! One statement on a server, from code that may or may not run inside a runtime.

use tokio_postgres::{Config, NoTls};

use super::ClusterError;

/// A thread with a runtime of its own, since one runtime cannot wait inside another.
pub fn execute(url: &str, statement: &str) -> Result<(), ClusterError> {
    let config: Config = url.parse().map_err(|_| ClusterError::Url)?;
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let (client, connection) = config.connect(NoTls).await.map_err(|error| said(&error))?;
            let work = async {
                let done = client.batch_execute(statement).await;
                drop(client);
                done
            };
            tokio::pin!(connection);
            let (done, _) = tokio::join!(work, connection);
            done.map_err(|error| said(&error))
        })
    };
    std::thread::scope(|scope| scope.spawn(run).join())
        .unwrap_or_else(|_| Err(ClusterError::Statement("its thread panicked".to_owned())))
}

fn said(error: &tokio_postgres::Error) -> ClusterError {
    match error.as_db_error() {
        Some(told) => ClusterError::Statement(told.message().to_owned()),
        None => ClusterError::Statement(error.to_string()),
    }
}

/// A name as SQL writes it.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
