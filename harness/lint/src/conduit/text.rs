//! What texts mean to Conduit, and how values are written.

use crate::catalogue::Type;
use crate::diagnostic::Fix;
use crate::source::Kind;
use crate::value::{Data, Node};

/// Why a text is not what a type takes; `None` if it is.
pub fn invalid_text(takes: Type, text: &str) -> Option<String> {
    match takes {
        Type::IpAddress => text.parse::<std::net::IpAddr>().err().map(|_| {
            if text == "localhost"
                || text.chars().any(|char| char.is_ascii_alphabetic()) && !text.contains(':')
            {
                "a name is not looked up".to_owned()
            } else if text.starts_with('[') {
                "brackets do not belong to it".to_owned()
            } else {
                "this is none".to_owned()
            }
        }),
        Type::ServerName => server_name(text).err().map(str::to_owned),
        Type::Url => url::Url::parse(text).err().map(|error| match error {
            url::ParseError::RelativeUrlWithoutBase => {
                "the scheme is missing, such as `https://`".to_owned()
            }
            error => error.to_string(),
        }),
        Type::RoomVersion => {
            let valid = !text.is_empty()
                && text.chars().count() <= 32
                && text
                    .chars()
                    .all(|char| char.is_ascii_alphanumeric() || ".-".contains(char));
            (!valid).then(|| "1 to 32 of letters, digits, `.` and `-`".to_owned())
        }
        Type::Duration => humantime::parse_duration(text)
            .err()
            .map(|error| error.to_string()),
        Type::Base64 => {
            use base64::Engine;
            use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
            let config = GeneralPurposeConfig::new()
                .with_decode_allow_trailing_bits(true)
                .with_decode_padding_mode(DecodePaddingMode::Indifferent);
            GeneralPurpose::new(&base64::alphabet::STANDARD, config)
                .decode(text)
                .err()
                .map(|error| error.to_string())
        }
        Type::OneOf(choices) => (!choices.contains(&text)).then(|| format!("`{text}` is none")),
        _ => None,
    }
}

/// A server name as the Ruma that Conduit 0.10.12 is built with takes it (later ones refuse an empty host).
fn server_name(text: &str) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    let end = if let Some(rest) = text.strip_prefix('[') {
        let (address, _) = rest.split_once(']').ok_or("the bracket is not closed")?;
        address
            .parse::<std::net::Ipv6Addr>()
            .map_err(|_| "no IPv6 address between the brackets")?;
        address.len() + 2
    } else {
        let end = text.find(':').unwrap_or(text.len());
        if text.starts_with("http:") || text.starts_with("https:") {
            return Err("a URL is not a server name: leave the scheme out");
        }
        if !text[..end]
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.')
        {
            return Err("a host has only letters, digits, `-` and `.`");
        }
        end
    };
    match text[end..].strip_prefix(':') {
        Some(port) if port.parse::<u16>().is_ok() => Ok(()),
        None if text.len() == end => Ok(()),
        _ => Err("only a port may follow the host"),
    }
}

/// A value as it is written in its kind of file.
pub(super) fn written(node: &Node, data: &Data) -> String {
    let environment = node.place.source.kind() == Kind::Environment;
    match data {
        Data::Text(text) if environment => {
            // Inner quotes keep figment from reading a number, outer ones keep systemd from taking the inner ones.
            format!("'\"{text}\"'")
        }
        Data::Text(text) => toml_edit::Value::from(text.as_str()).to_string(),
        Data::Integer(number) => number.to_string(),
        Data::Bool(bool) => bool.to_string(),
        _ => node.place.text().to_owned(),
    }
}

/// The value that was meant, where it is mistyped in a way that has one meaning.
pub(super) fn correction(takes: Type, node: &Node) -> Option<Fix> {
    // A word of a unit's `Environment=` may be quoted with its name; that is left to a person.
    if node.place.source.kind() == Kind::Unit {
        return None;
    }
    let plain_text = |text: &str| !text.contains(['\'', '"', '\\', '\n', '$', '`']);
    let raw = node.place.text().trim();
    let meant = match (takes, &node.data) {
        (Type::Bool, Data::Text(text)) => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" => Data::Bool(true),
            "false" | "no" | "off" => Data::Bool(false),
            _ => return None,
        },
        (Type::Bool, Data::Integer(number @ (0 | 1))) if node.from_environment() => {
            Data::Bool(*number == 1)
        }
        (Type::Integer { min, max }, Data::Text(text)) => {
            let number = text.trim().replace('_', "").parse::<i128>().ok()?;
            if !(min..=max).contains(&number) {
                return None;
            }
            Data::Integer(number)
        }
        (Type::Float, Data::Text(text)) => {
            Data::Integer(text.trim().replace('_', "").parse::<i64>().ok()?.into())
        }
        (Type::Text, Data::Integer(_) | Data::Bool(_) | Data::Float(_))
            if node.from_environment() && plain_text(raw) =>
        {
            Data::Text(raw.to_owned())
        }
        (Type::RoomVersion, Data::Integer(number)) => Data::Text(number.to_string()),
        (Type::List(Type::Text | Type::ServerName), Data::Text(text))
            if plain_text(text) && !text.contains(',') =>
        {
            let list = format!("[\"{text}\"]");
            let replacement = if node.from_environment() {
                format!("'{list}'")
            } else {
                list
            };
            return Some(Fix::replace(
                "write it as an array",
                !text.is_empty(),
                &node.place,
                replacement,
            ));
        }
        (Type::Table(spec), Data::Text(text)) if spec.path == "global.ignored_keys" => {
            let replacement = format!("{{ key = {} }}", toml_edit::Value::from(text.as_str()));
            let safe = invalid_text(Type::Base64, text).is_none() && !node.from_environment();
            return Some(Fix::replace(
                "write it as a table",
                safe,
                &node.place,
                replacement,
            ));
        }
        (Type::Url, Data::Text(text))
            if url::Url::parse(&format!("https://{text}")).is_ok()
                && plain_text(text)
                && text.contains('.') =>
        {
            return Some(Fix::replace(
                "write the scheme",
                false,
                &node.place,
                written(node, &Data::Text(format!("https://{text}"))),
            ));
        }
        (Type::OneOf(choices), Data::Text(text)) => {
            let choice = choices
                .iter()
                .find(|choice| choice.eq_ignore_ascii_case(text.trim()))?;
            Data::Text((*choice).to_owned())
        }
        _ => return None,
    };
    let replacement = written(node, &meant);
    Some(Fix::replace(
        format!("write `{replacement}`"),
        true,
        &node.place,
        replacement,
    ))
}
