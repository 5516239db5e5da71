//! The API server over TLS, as a pod or a person with a kubeconfig meets it.

use super::*;
use crate::tls::Listener;

/// Serves a book over TLS; the port, and the authority as PEM.
async fn serve(book: &Shared) -> (u16, String, JoinHandle<()>) {
    let (listener, address, authority) = Listener::bind().await;
    let router = router(book);
    #[expect(clippy::disallowed_methods, reason = "a server of a test, ended with it")]
    let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (address.port(), authority, serving)
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_with_an_authority_of_its_own_and_a_token_that_is_renewed() {
    let book = Shared::default();
    for name in ["a", "b"] {
        book.lock().nodes.insert(name.to_owned(), json!({"metadata": {"name": name}, "spec": {}}));
    }
    let (port, authority, serving) = serve(&book).await;
    let directory = std::env::temp_dir().join(format!("tidings-{}", uuid::Uuid::now_v7().simple()));
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("ca.crt"), authority).unwrap();
    std::fs::write(directory.join("token"), format!("{TOKEN}\n")).unwrap();
    let server = format!("server: 'https://localhost:{port}'");
    let text = format!(
        "current-context: robot\n\
         clusters:\n- {{name: c, cluster: {{{server}, certificate-authority: ca.crt}}}}\n\
         - {{name: unknown, cluster: {{{server}}}}}\n\
         contexts:\n- {{name: robot, context: {{cluster: c, user: robot}}}}\n\
         - {{name: unknown, context: {{cluster: unknown, user: robot}}}}\n\
         users: [{{name: robot, user: {{tokenFile: token}}}}]\n"
    );
    let config = directory.join("config");
    std::fs::write(&config, text).unwrap();
    let settings = [("TIDINGS_TASK_KUBERNETES", config.to_str().unwrap())];
    let replica = Replica::in_memory("tls", &[QUICK, &settings].concat()).await;
    let task = ended(&replica, &["a"], json!({"operation": "cordon"})).await;
    assert_eq!(task["status"], "completed", "{task}");
    assert_eq!(book.lock().nodes["a"]["spec"]["unschedulable"], true);
    // As the kubelet does, long before the old one has run out.
    book.lock().token = "another-token";
    std::fs::write(directory.join("token"), "another-token").unwrap();
    let task = ended(&replica, &["b"], json!({"operation": "cordon"})).await;
    assert_eq!(task["status"], "completed", "{task}");
    // Whoever is not signed by an authority that we know is told nothing.
    let unknown = [settings[0], ("TIDINGS_TASK_KUBERNETES_CONTEXT", "unknown")];
    let replica = Replica::in_memory("unknown", &[QUICK, &unknown].concat()).await;
    let task = ended(&replica, &["a"], json!({"operation": "uncordon"})).await;
    assert_eq!(task["status"], "failed", "{task}");
    let error = error(&replica, &task, "a").await;
    assert!(error.contains("certificate"), "{error}");
    serving.abort();
    std::fs::remove_dir_all(directory).unwrap();
}
