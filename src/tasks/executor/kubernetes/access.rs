//! Where the API server is and as whom it is asked: from inside the cluster, or as a kubeconfig says.
//!
//! Of a kubeconfig everything is understood that names an authority and a credential. What runs a
//! program to get one is refused: a server has no use for a person's login.

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;

/// Where Kubernetes puts what a pod needs.
pub const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

#[derive(Clone)]
pub struct Access {
    /// Without a slash at the end.
    pub url: String,
    /// PEM; unset, the authorities of the system.
    pub authority: Option<Vec<u8>>,
    pub credential: Credential,
}

#[derive(Clone)]
pub enum Credential {
    None,
    Token(String),
    /// Read with each request, since it is renewed.
    TokenFile(PathBuf),
    /// PEM: a certificate and its key.
    Identity(Vec<u8>),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Kubeconfig {
    #[serde(default)]
    current_context: String,
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
    #[serde(default)]
    insecure_skip_tls_verify: bool,
    tls_server_name: Option<String>,
    proxy_url: Option<String>,
}

#[derive(Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Deserialize)]
struct Context {
    cluster: String,
    user: String,
}

#[derive(Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct User {
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    exec: Option<serde::de::IgnoredAny>,
    auth_provider: Option<serde::de::IgnoredAny>,
    username: Option<String>,
    #[serde(rename = "as")]
    impersonated: Option<String>,
}

impl Access {
    /// As a pod of the cluster, whose service account is in a directory. `variable` reads the environment.
    pub fn in_cluster(
        directory: &Path,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Access, String> {
        let named = |name: &str| {
            let value = variable(name).filter(|value| !value.is_empty());
            value.ok_or_else(|| {
                format!("{name} is not set: this is no pod of a cluster; name a kubeconfig instead")
            })
        };
        let (host, port) = (named("KUBERNETES_SERVICE_HOST")?, named("KUBERNETES_SERVICE_PORT")?);
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let token = directory.join("token");
        read(&token)?;
        Ok(Access {
            url: format!("https://{host}:{port}"),
            authority: Some(read(&directory.join("ca.crt"))?),
            credential: Credential::TokenFile(token),
        })
    }

    /// As a kubeconfig says, in its current context unless another one is named.
    pub fn kubeconfig(path: &Path, context: Option<&str>) -> Result<Access, String> {
        let text = read(path)?;
        let wrong = |why: String| format!("{}: {why}", path.display());
        let config: Kubeconfig =
            serde_yaml_ng::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
        config.access(path.parent().unwrap_or(Path::new("")), context).map_err(wrong)
    }
}

impl Kubeconfig {
    /// Paths are taken from the kubeconfig's directory.
    fn access(self, base: &Path, context: Option<&str>) -> Result<Access, String> {
        let name = context.unwrap_or(&self.current_context);
        let context = self.contexts.into_iter().find(|own| own.name == name);
        let context = context.ok_or_else(|| format!("it has no context {name:?}"))?.context;
        let cluster = self.clusters.into_iter().find(|own| own.name == context.cluster);
        let cluster =
            cluster.ok_or_else(|| format!("it has no cluster {:?}", context.cluster))?.cluster;
        let user = self.users.into_iter().find(|own| own.name == context.user);
        let user = user.ok_or_else(|| format!("it has no user {:?}", context.user))?.user;
        for (there, what) in [
            (cluster.insecure_skip_tls_verify, "insecure-skip-tls-verify"),
            (cluster.tls_server_name.is_some(), "tls-server-name"),
            (cluster.proxy_url.is_some(), "proxy-url"),
            (user.exec.is_some(), "exec"),
            (user.auth_provider.is_some(), "auth-provider"),
            (user.username.is_some(), "username"),
            (user.impersonated.is_some(), "as"),
        ] {
            if there {
                return Err(format!(
                    "{what} is not understood: name a context with a certificate-authority and the token of a service account"
                ));
            }
        }
        let authority = file_or_data(
            base,
            cluster.certificate_authority.as_deref(),
            cluster.certificate_authority_data.as_deref(),
        )?;
        let certificate = file_or_data(
            base,
            user.client_certificate.as_deref(),
            user.client_certificate_data.as_deref(),
        )?;
        let key = file_or_data(base, user.client_key.as_deref(), user.client_key_data.as_deref())?;
        let credential = match (certificate, key, user.token_file, user.token) {
            (_, _, Some(file), _) => Credential::TokenFile(base.join(file)),
            (_, _, None, Some(token)) => Credential::Token(token),
            (Some(mut certificate), Some(key), ..) => {
                certificate.push(b'\n');
                certificate.extend(key);
                Credential::Identity(certificate)
            }
            (None, None, ..) => Credential::None,
            _ => return Err("client-certificate and client-key come together".to_owned()),
        };
        let url = cluster.server.trim_end_matches('/').to_owned();
        Ok(Access { url, authority, credential })
    }
}

fn file_or_data(
    base: &Path,
    file: Option<&Path>,
    data: Option<&str>,
) -> Result<Option<Vec<u8>>, String> {
    match (data, file) {
        (Some(data), _) => {
            let bytes = BASE64_STANDARD.decode(data.trim());
            bytes.map(Some).map_err(|error| format!("what should be base64 is not: {error}"))
        }
        (None, Some(file)) => read(&base.join(file)).map(Some),
        (None, None) => Ok(None),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "
apiVersion: v1
kind: Config
current-context: prod
clusters:
- {name: c, cluster: {server: 'https://10.0.0.1:6443/', certificate-authority-data: Y2E=}}
- {name: blind, cluster: {server: 'https://a', insecure-skip-tls-verify: true}}
contexts:
- {name: prod, context: {cluster: c, user: robot, namespace: default}}
- {name: cert, context: {cluster: c, user: cert}}
- {name: half, context: {cluster: c, user: half}}
- {name: login, context: {cluster: c, user: person}}
- {name: blind, context: {cluster: blind, user: robot}}
- {name: lost, context: {cluster: none, user: robot}}
users:
- {name: robot, user: {token: s3cr3t}}
- {name: cert, user: {client-certificate-data: Y2VydA==, client-key-data: a2V5}}
- {name: half, user: {client-key-data: a2V5}}
- name: person
  user: {exec: {command: aws, args: [eks, get-token]}}
";

    fn access(context: Option<&str>) -> Result<Access, String> {
        let config: Kubeconfig = serde_yaml_ng::from_str(CONFIG).unwrap();
        config.access(Path::new("/etc"), context)
    }

    #[test]
    fn a_kubeconfig_says_where_and_as_whom() {
        let current = access(None).unwrap();
        assert_eq!(current.url, "https://10.0.0.1:6443");
        assert_eq!(current.authority.as_deref(), Some(&b"ca"[..]));
        assert!(matches!(current.credential, Credential::Token(token) if token == "s3cr3t"));
        let named = access(Some("cert")).unwrap().credential;
        assert!(matches!(named, Credential::Identity(pem) if pem == b"cert\nkey"));
    }

    #[test]
    fn a_pod_is_told_where_and_as_whom() {
        let directory = std::env::temp_dir().join(format!("tidings-{}", uuid::Uuid::now_v7()));
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("token"), "t").unwrap();
        fs::write(directory.join("ca.crt"), "ca").unwrap();
        let variable =
            |name: &str| Some(if name.ends_with("HOST") { "fd00::1" } else { "443" }.to_owned());
        let access = Access::in_cluster(&directory, variable).unwrap();
        assert_eq!(access.url, "https://[fd00::1]:443");
        assert_eq!(access.authority.as_deref(), Some(&b"ca"[..]));
        let file = directory.join("token");
        assert!(matches!(access.credential, Credential::TokenFile(own) if own == file));
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_it_says_that_is_not_understood_is_refused_with_a_reason() {
        for (context, reason) in [
            ("none", "no context"),
            ("lost", "no cluster"),
            ("login", "exec is not understood"),
            ("blind", "insecure-skip-tls-verify"),
            ("half", "come together"),
        ] {
            let Err(error) = access(Some(context)) else { panic!("{context} is taken") };
            assert!(error.contains(reason), "{context}: {error}");
        }
        let nowhere = Path::new("/none");
        let outside = Access::in_cluster(nowhere, |_| None).map(|_| ()).unwrap_err();
        assert!(outside.contains("kubeconfig"), "{outside}");
        let bare = Access::in_cluster(nowhere, |_| Some("1".to_owned())).map(|_| ()).unwrap_err();
        assert!(bare.contains("/none/token"), "{bare}");
    }
}
