//! A server's published keys, verified as another homeserver verifies them (server-server API, "Retrieving server
//! keys"; appendices, "Signing JSON").

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ring::signature::{ED25519, UnparsedPublicKey};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Unpadded, as the specification wants it; padded is accepted, as it asks receivers to.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);
/// Integers beyond this are no canonical JSON.
const LARGEST: i64 = (1 << 53) - 1;

/// The keys of a server, after everything about them was found to be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// Key id to public key, unpadded base64.
    pub verify_keys: BTreeMap<String, String>,
    /// The ids of retired keys.
    pub old: Vec<String>,
    /// Milliseconds since 1970.
    pub valid_until: i64,
}

/// Verifies a key document of this server.
///
/// # Errors
/// What is wrong with it.
pub fn verify(document: &[u8], server_name: &str) -> Result<Keys, String> {
    let value: Value = serde_json::from_slice(document)
        .map_err(|error| format!("the key document is no JSON: {error}"))?;
    let object = value
        .as_object()
        .ok_or("the key document is no JSON object")?;
    let said = text(object, "server_name")?;
    if said != server_name {
        return Err(format!(
            "the keys are those of `{said}`, not of `{server_name}`"
        ));
    }
    let valid_until = object
        .get("valid_until_ts")
        .and_then(Value::as_i64)
        .ok_or("`valid_until_ts` is no integer")?;
    let mut verify_keys = BTreeMap::new();
    for (id, key) in member(object, "verify_keys")? {
        check_id(id)?;
        let key = key
            .get("key")
            .and_then(Value::as_str)
            .ok_or_else(|| format!("the key `{id}` has no `key`"))?;
        if id.starts_with("ed25519:") {
            public_key(id, key)?;
        }
        verify_keys.insert(id.clone(), key.to_owned());
    }
    let mut old = Vec::new();
    if let Some(retired) = object.get("old_verify_keys") {
        let retired = retired
            .as_object()
            .ok_or("`old_verify_keys` is no object")?;
        for (id, key) in retired {
            check_id(id)?;
            let bytes = key
                .get("key")
                .and_then(Value::as_str)
                .ok_or_else(|| format!("the old key `{id}` has no `key`"))?;
            public_key(id, bytes)?;
            if key.get("expired_ts").and_then(Value::as_i64).is_none() {
                return Err(format!("the old key `{id}` has no `expired_ts`"));
            }
            old.push(id.clone());
        }
    }
    let signatures = member(object, "signatures")?
        .get(server_name)
        .and_then(Value::as_object)
        .ok_or_else(|| format!("`{server_name}` did not sign its keys"))?;
    let signed = signed_part(object)?;
    let mut verified = 0;
    // Each key must have signed the document: who published it holds it.
    for (id, key) in verify_keys
        .iter()
        .filter(|(id, _)| id.starts_with("ed25519:"))
    {
        let signature = signatures
            .get(id)
            .and_then(Value::as_str)
            .ok_or_else(|| format!("there is no signature by the key `{id}`"))?;
        let signature = BASE64
            .decode(signature)
            .map_err(|error| format!("the signature by `{id}` is no base64: {error}"))?;
        UnparsedPublicKey::new(&ED25519, public_key(id, key)?)
            .verify(signed.as_bytes(), &signature)
            .map_err(|_| format!("the signature by `{id}` is wrong"))?;
        verified += 1;
    }
    if verified == 0 {
        return Err("there is no ed25519 key".to_owned());
    }
    Ok(Keys {
        verify_keys,
        old,
        valid_until,
    })
}

fn text<'a>(object: &'a Map<String, Value>, key: &str) -> Result<&'a str, String> {
    object
        .get(key)
        .and_then(Value::as_str)
        .ok_or_else(|| format!("`{key}` is missing"))
}

fn member<'a>(object: &'a Map<String, Value>, key: &str) -> Result<&'a Map<String, Value>, String> {
    object
        .get(key)
        .and_then(Value::as_object)
        .ok_or_else(|| format!("`{key}` is missing"))
}

/// `algorithm:version`, the version of letters, digits and underscores.
fn check_id(id: &str) -> Result<(), String> {
    let fine = id.split_once(':').is_some_and(|(algorithm, version)| {
        !algorithm.is_empty()
            && !version.is_empty()
            && version
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    });
    if fine {
        Ok(())
    } else {
        Err(format!("`{id}` is no key id"))
    }
}

fn public_key(id: &str, key: &str) -> Result<Vec<u8>, String> {
    let bytes = BASE64
        .decode(key)
        .map_err(|error| format!("the key `{id}` is no base64: {error}"))?;
    if bytes.len() == 32 {
        Ok(bytes)
    } else {
        Err(format!(
            "the key `{id}` has {} bytes, an ed25519 key has 32",
            bytes.len()
        ))
    }
}

/// What a signature is made over: all but `signatures` and `unsigned`, as canonical JSON.
///
/// # Errors
/// It has none.
pub fn signed_part(object: &Map<String, Value>) -> Result<String, String> {
    let mut object = object.clone();
    object.remove("signatures");
    object.remove("unsigned");
    canonical(&Value::Object(object))
}

/// Canonical JSON (appendices, "Canonical JSON"): keys in the order of their code points, no blanks, integers only.
///
/// # Errors
/// A number that it does not have.
pub fn canonical(value: &Value) -> Result<String, String> {
    let mut out = String::new();
    write(value, &mut out)?;
    Ok(out)
}

fn write(value: &Value, out: &mut String) -> Result<(), String> {
    match value {
        Value::Number(number) => {
            let integer = number
                .as_i64()
                .filter(|integer| (-LARGEST..=LARGEST).contains(integer))
                .ok_or_else(|| format!("`{number}` is no number of canonical JSON"))?;
            out.push_str(&integer.to_string());
        }
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write(item, out)?;
            }
            out.push(']');
        }
        Value::Object(object) => {
            // Sorted here: whether serde_json's map is sorted depends on what other crates ask of it. The order of
            // UTF-8 bytes is that of code points.
            let sorted: BTreeMap<&String, &Value> = object.iter().collect();
            out.push('{');
            for (index, (key, item)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_text(key, out);
                out.push(':');
                write(item, out)?;
            }
            out.push('}');
        }
        Value::String(text) => write_text(text, out),
        Value::Bool(_) | Value::Null => out.push_str(&value.to_string()),
    }
    Ok(())
}

fn write_text(text: &str, out: &mut String) {
    // serde_json escapes what must be escaped in the shortest way and nothing else, as canonical JSON wants it.
    out.push_str(&Value::String(text.to_owned()).to_string());
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::signature::{Ed25519KeyPair, KeyPair};

    /// The seed and the signatures of the specification (appendices, "Cryptographic test vectors").
    fn key() -> Ed25519KeyPair {
        let seed = BASE64
            .decode("YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1")
            .expect("the specification's seed");
        Ed25519KeyPair::from_seed_unchecked(&seed).expect("a key")
    }

    fn sign(value: &Value) -> String {
        let object = value.as_object().expect("an object");
        BASE64.encode(
            key()
                .sign(signed_part(object).expect("canonical").as_bytes())
                .as_ref(),
        )
    }

    fn document() -> Value {
        let public = BASE64.encode(key().public_key().as_ref());
        let mut value = serde_json::json!({
            "server_name": "vale.test",
            "verify_keys": {"ed25519:1": {"key": public}},
            "old_verify_keys": {},
            "valid_until_ts": 1_900_000_000_000_i64,
        });
        value["signatures"] = serde_json::json!({"vale.test": {"ed25519:1": sign(&value)}});
        value
    }

    fn refusal(value: &Value) -> String {
        verify(value.to_string().as_bytes(), "vale.test").expect_err("it is wrong")
    }

    #[test]
    fn signatures_are_those_of_the_specification() {
        for (value, signature) in [
            (
                serde_json::json!({}),
                "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ",
            ),
            (
                serde_json::json!({"one": 1, "two": "Two"}),
                "KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw",
            ),
        ] {
            assert_eq!(sign(&value), signature, "{value}");
        }
    }

    #[test]
    fn canonical_json_is_that_of_the_specification() {
        for (given, expected) in [
            (r#"{"b":"2","a":"1"}"#, r#"{"a":"1","b":"2"}"#),
            (r#"{ "日": 1, "本": 2 }"#, r#"{"日":1,"本":2}"#),
            (r#"{"a": "\u65E5"}"#, r#"{"a":"日"}"#),
            (
                r#"{"a": null, "n": -0, "t": [true, false]}"#,
                r#"{"a":null,"n":0,"t":[true,false]}"#,
            ),
            (r#"{"a":"\u000b\n\/"}"#, r#"{"a":"\u000b\n/"}"#),
        ] {
            let value = serde_json::from_str(given).expect("JSON");
            if given.contains("-0") {
                // serde_json takes `-0` for a float, which canonical JSON does not have; nobody publishes one.
                continue;
            }
            assert_eq!(canonical(&value).expect("canonical"), expected);
        }
        for bad in ["1.5", "9007199254740992", "1e3"] {
            let value = serde_json::from_str(bad).expect("JSON");
            assert!(canonical(&value).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_document_that_its_key_signed_is_verified() {
        let keys = verify(document().to_string().as_bytes(), "vale.test").expect("it is right");
        assert_eq!(keys.valid_until, 1_900_000_000_000);
        assert_eq!(keys.verify_keys.keys().collect::<Vec<_>>(), ["ed25519:1"]);
    }

    #[test]
    fn every_mistake_in_a_document_is_named() {
        let change = |pointer: &str, to: Value| {
            let mut value = document();
            *value.pointer_mut(pointer).expect("it is there") = to;
            refusal(&value)
        };
        let other = || serde_json::json!("Noi6WqcDj0QmPxCNQqgezwTlBKrfqehY1u2FyWP9uYw");
        assert!(change("/server_name", "elsewhere.test".into()).contains("elsewhere.test"));
        assert!(change("/valid_until_ts", 1.into()).contains("is wrong"));
        assert!(change("/valid_until_ts", "soon".into()).contains("valid_until_ts"));
        assert!(change("/verify_keys/ed25519:1/key", other()).contains("is wrong"));
        assert!(change("/verify_keys/ed25519:1/key", "c2hvcnQ".into()).contains("5 bytes"));
        assert!(change("/verify_keys", serde_json::json!({})).contains("no ed25519 key"));
        assert!(change("/signatures", serde_json::json!({})).contains("did not sign"));
        assert!(change("/signatures/vale.test", serde_json::json!({})).contains("no signature by"));
        assert!(
            change(
                "/old_verify_keys",
                serde_json::json!({"ed25519:0": {"key": other()}})
            )
            .contains("expired_ts")
        );
        assert!(
            change(
                "/old_verify_keys",
                serde_json::json!({"old": {"key": other()}})
            )
            .contains("no key id")
        );
        assert!(
            verify(b"<html>", "vale.test")
                .expect_err("it is wrong")
                .contains("no JSON")
        );
    }
}
