//! Which hosts a replica may reach for its users: none that is not listed, and no address inside the network unless it
//! is listed too, so that a name which somebody else controls leads nobody in.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// The hosts that are listed, and the private addresses.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Hosts {
    /// Where they are listed, for whoever is refused.
    setting: &'static str,
    /// In lower case; without a port only the usual one of the scheme.
    names: Vec<(String, Option<u16>)>,
    nets: Vec<(IpAddr, u8)>,
}

/// A secret for the headers of requests to one host: over TLS, unless its port is written.
#[derive(Clone)]
pub struct Secret {
    pub name: String,
    /// As it was written, in lower case.
    host: String,
    pub value: String,
}

impl Secret {
    /// Whether it may go there.
    pub fn is_for(&self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or_default();
        match self.host == host {
            true => url.scheme() == "https" && port == 443,
            false => self.host == format!("{host}:{port}"),
        }
    }

    /// `name@host=value` or `name@host:port=value`
    pub fn parse(text: &str) -> Option<Secret> {
        let (place, value) = text.split_once('=')?;
        let (name, host) = place.split_once('@')?;
        let good = !name.is_empty() && !host.is_empty() && !value.is_empty();
        let host = host.to_ascii_lowercase();
        good.then(|| Secret { name: name.to_owned(), host, value: value.to_owned() })
    }
}

impl Hosts {
    /// `host`, `host:port`, an address, or a net such as `10.0.0.0/8` whose addresses names may lead to.
    pub fn parse(setting: &'static str, entries: &[String]) -> Result<Hosts, String> {
        let mut hosts = Hosts { setting, ..Hosts::default() };
        for entry in entries {
            let refuse = || format!("{entry:?} is no host, host:port, address or net");
            if let Some((address, length)) = entry.split_once('/') {
                let address: IpAddr = address.parse().map_err(|_| refuse())?;
                let most = if address.is_ipv4() { 32 } else { 128 };
                let length: u8 = length.parse().ok().filter(|n| *n <= most).ok_or_else(refuse)?;
                hosts.nets.push((address, length));
                continue;
            }
            let url = Url::parse(&format!("http://{entry}/")).map_err(|_| refuse())?;
            let bare = url.path() == "/" && url.username().is_empty() && url.query().is_none();
            let Some(host) = url.host_str().filter(|_| bare) else { return Err(refuse()) };
            // The usual port of the scheme is not shown by the URL, and yet was written.
            let port = url.port().or_else(|| entry.ends_with(":80").then_some(80));
            hosts.names.push((host.to_owned(), port));
            if let Some(address) = literal(host) {
                hosts.nets.push((address, if address.is_ipv4() { 32 } else { 128 }));
            }
        }
        Ok(hosts)
    }

    /// Why a URL may not be asked, if it may not.
    pub fn check(&self, url: &Url) -> Result<(), String> {
        if !["http", "https"].contains(&url.scheme()) {
            return Err("url: http or https".to_owned());
        }
        let (host, port) = (url.host_str().unwrap_or_default(), url.port());
        let listed = self.names.iter().any(|(name, own)| {
            name == host && (*own == port || (own.is_some() && *own == url.port_or_known_default()))
        });
        if !listed {
            let shown = port.map_or(host.to_owned(), |port| format!("{host}:{port}"));
            return Err(format!("url: the host {shown} is not in the setting {}", self.setting));
        }
        match literal(host) {
            Some(address) if !self.reaches(address) => Err("url: a private address".to_owned()),
            _ => Ok(()),
        }
    }

    /// Whether an address that a name led to may be connected to.
    pub fn reaches(&self, address: IpAddr) -> bool {
        !is_private(address) || self.nets.iter().any(|(net, length)| covers(*net, *length, address))
    }
}

/// Resolves names to addresses that may be reached, and hands out no others.
pub struct Resolver(pub Hosts);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let hosts = self.0.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let may: Vec<SocketAddr> = found.filter(|found| hosts.reaches(found.ip())).collect();
            if may.is_empty() {
                let setting = hosts.setting;
                let why = format!(
                    "the host leads to no address that may be reached; see the setting {setting}"
                );
                return Err(why.into());
            }
            let addresses: Addrs = Box::new(may.into_iter());
            Ok(addresses)
        })
    }
}

fn literal(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn covers(net: IpAddr, length: u8, address: IpAddr) -> bool {
    let length = u32::from(length) + if net.is_ipv4() { 96 } else { 0 };
    let shift = 128 - length;
    bits(net).checked_shr(shift) == bits(address).checked_shr(shift)
}

/// Everything that is not somebody's on the public Internet.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_private_v4(v4),
        IpAddr::V6(v6) => is_private_v6(v6),
    }
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || a == 0
        || a >= 224
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (18..20).contains(&b))
}

fn is_private_v6(address: Ipv6Addr) -> bool {
    if let Some(v4) = address.to_ipv4_mapped() {
        return is_private_v4(v4);
    }
    // Only what is globally routed counts as public, and of that not what wraps an IPv4 address.
    let [first, second, ..] = address.segments();
    (first & 0xe000) != 0x2000 || first == 0x2002 || (first == 0x2001 && second < 0x0200)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(entries: &[&str]) -> Hosts {
        Hosts::parse("hosts", &entries.iter().map(|entry| (*entry).to_owned()).collect::<Vec<_>>())
            .unwrap()
    }

    #[test]
    fn only_listed_hosts_may_be_asked() {
        let listed =
            hosts(&["Nodes.test", "api.test:8443", "10.0.0.7", "[::1]:9000", "10.1.0.0/16"]);
        for (url, may) in [
            ("https://nodes.test/a", true),
            ("http://nodes.test/a", true),
            ("http://NODES.test/a", true),
            ("http://nodes.test:8080/a", false),
            ("https://api.test:8443/", true),
            ("https://api.test/", false),
            ("http://10.0.0.7/", true),
            ("http://10.0.0.8/", false),
            ("http://10.1.0.1/", false),
            ("http://[::1]:9000/", true),
            ("http://[::1]/", false),
            ("http://167772167/", true),
            ("http://nodes.test.evil/", false),
            ("ftp://nodes.test/", false),
            ("http://127.0.0.1/", false),
        ] {
            assert_eq!(listed.check(&Url::parse(url).unwrap()).is_ok(), may, "{url}");
        }
        assert!(hosts(&[]).check(&Url::parse("https://nodes.test/").unwrap()).is_err());
    }

    #[test]
    fn a_name_leads_to_public_addresses_and_listed_ones() {
        let listed = hosts(&["10.0.0.7", "192.168.0.0/16", "fd00::/8"]);
        for (address, may) in [
            ("93.184.216.34", true),
            ("2606:2800:220:1::1", true),
            ("10.0.0.7", true),
            ("10.0.0.8", false),
            ("192.168.3.4", true),
            ("::ffff:192.168.3.4", true),
            ("::ffff:127.0.0.1", false),
            ("127.0.0.1", false),
            ("169.254.169.254", false),
            ("100.64.0.1", false),
            ("0.0.0.0", false),
            ("224.0.0.1", false),
            ("::1", false),
            ("fe80::1", false),
            ("fd12::1", true),
            ("fc00::1", false),
            ("64:ff9b::7f00:1", false),
            ("2002:7f00:1::", false),
        ] {
            assert_eq!(listed.reaches(address.parse().unwrap()), may, "{address}");
        }
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        for bad in ["", "a b", "10.0.0.0/33", "x/8", "a/b", "http://a", "u@a", "a?b"] {
            assert!(Hosts::parse("hosts", &[bad.to_owned()]).is_err(), "{bad:?}");
        }
        for bad in ["", "a", "a=b", "a@=b", "@h=b", "a@h="] {
            assert!(Secret::parse(bad).is_none(), "{bad:?}");
        }
        let secret = Secret::parse("token@Nodes.test=a=b").unwrap();
        assert_eq!((secret.host.as_str(), secret.value.as_str()), ("nodes.test", "a=b"));
    }
}
