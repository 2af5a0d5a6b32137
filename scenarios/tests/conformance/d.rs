//! D: media.

use fixtures::media;
use harness::commons::claim;
use harness::faulty::Mutant;
use harness::known;
use harness::scenario::Outcome;
use harness::{Failure, Result};
use reqwest::Method;
use ruma::OwnedMxcUri;
use scenarios::{encoded, product};

/// Server and media id of a content URI, as they stand in a path.
fn place(uri: &OwnedMxcUri) -> Result<String> {
    let (server, id) = uri
        .parts()
        .map_err(|error| Failure::product("name the media by a content URI").because(error))?;
    Ok(format!("{server}/{id}"))
}

/// D1. Pictures, texts and noise come back byte by byte under the type that they were given, also to somebody else.
/// Client-Server API, "Content repository".
#[test]
fn media_comes_back_byte_by_byte_under_its_type() -> Outcome {
    claim()
        .notices(&[Mutant::TruncatesMedia])
        .holds(async |scene| {
            let (alice, bob) = (scene.cast("alice").await?, scene.cast("bob").await?);
            let noise = media::noise();
            let all = [
                (media::ROSE.bytes, media::ROSE.content_type),
                (media::NOTE.bytes, media::NOTE.content_type),
                (noise.as_slice(), "application/octet-stream"),
                (b"".as_slice(), "application/octet-stream"),
            ];
            for (bytes, kind) in all {
                let uri = alice.upload(bytes, kind).await?;
                for who in [&alice, &bob] {
                    let got = who.download(&uri).await?;
                    let same = got.bytes == bytes;
                    product(
                        same && got.content_type.as_deref() == Some(kind),
                        &format!("give {} bytes of `{kind}` back", bytes.len()),
                        format!("{} bytes of {:?}", got.bytes.len(), got.content_type),
                    )?;
                }
            }
            Ok(())
        })
}

/// D1. A page, a script or a drawing that alice uploads is never shown by a browser in the server's name: it is handed
/// out as an attachment, and sandboxed. A picture may be shown inline. Its name comes back.
/// Client-Server API, "Serving inline content".
#[test]
fn what_a_browser_could_execute_is_handed_out_as_an_attachment() -> Outcome {
    claim()
        .notices(&[Mutant::ShowsMediaInline])
        .holds(async |scene| {
            let alice = scene.cast("alice").await?;
            let token = &alice.session().access_token;
            for (kind, name, inline) in [
                ("text/html", "page.html", false),
                ("image/svg+xml", "drawing.svg", false),
                ("application/javascript", "script.js", false),
                ("application/xhtml+xml", "page.xhtml", false),
                ("image/png", "rose.png", true),
            ] {
                let bytes = if inline {
                    media::ROSE.bytes
                } else {
                    b"<script>alert(1)</script>".as_slice()
                };
                let uri = alice.try_upload(bytes, kind, Some(name)).await?.must()?;
                let reply = scene
                    .ask(
                        Method::GET,
                        &format!("/_matrix/client/v1/media/download/{}", place(&uri)?),
                    )
                    .bearer("alice", token)
                    .reply()
                    .await?;
                let how = reply.header("content-disposition").to_owned();
                let seen = format!(
                    "`{how}`, policy `{}`",
                    reply.header("content-security-policy")
                );
                product(
                    how.starts_with("attachment") || (inline && how.starts_with("inline")),
                    &format!("hand `{kind}` out safely"),
                    &seen,
                )?;
                product(
                    how.contains(name),
                    &format!("give the name `{name}` back"),
                    &seen,
                )?;
                product(
                    reply.header("content-security-policy").contains("sandbox"),
                    &format!("sandbox `{kind}`"),
                    &seen,
                )?;
            }
            Ok(())
        })
}

/// D2. Since media is authenticated, nobody gets new media without a token: not by the new endpoints, and not by the
/// old ones, which are frozen. Client-Server API, "Content repository", v1.11.
#[test]
fn media_is_refused_without_a_token_on_new_and_old_endpoints() -> Outcome {
    claim()
        .notices(&[Mutant::ServesMediaToAnybody, Mutant::ForgivesBadTokens])
        .holds(async |scene| {
            let alice = scene.cast("alice").await?;
            let uri = alice
                .upload(media::ROSE.bytes, media::ROSE.content_type)
                .await?;
            let place = place(&uri)?;
            for path in [
                format!("download/{place}"),
                format!("download/{place}/rose.png"),
                format!("thumbnail/{place}?width=32&height=32"),
                "config".to_owned(),
            ] {
                scene
                    .ask(Method::GET, &format!("/_matrix/client/v1/media/{path}"))
                    .reply()
                    .await?
                    .must_be(401, "M_MISSING_TOKEN")?;
            }
            for path in [
                format!("download/{place}"),
                format!("download/{place}/rose.png"),
                format!("thumbnail/{place}?width=32&height=32"),
            ] {
                for version in ["r0", "v3"] {
                    let reply = scene
                        .ask(Method::GET, &format!("/_matrix/media/{version}/{path}"))
                        .reply()
                        .await?;
                    product(
                        reply.is(404, "M_NOT_FOUND"),
                        "find new media on the frozen endpoints for nobody",
                        format!("{}: {}", reply.asked, reply.told()),
                    )?;
                }
            }
            scene
                .ask(Method::POST, "/_matrix/media/v3/upload")
                .body("text/plain", "from nobody")
                .reply()
                .await?
                .must_be(401, "M_MISSING_TOKEN")?;
            alice.downloads(&uri, media::ROSE.bytes).await?;
            Ok(())
        })
}

/// D2. Without a token nobody makes the server fetch something from elsewhere either, whatever `allow_remote` says; and
/// that the media is there is shown by alice, who has a token. Client-Server API, "Content repository".
#[test]
fn the_legacy_endpoint_fetches_nothing_from_elsewhere() -> Outcome {
    claim()
        .notices(&[Mutant::FindsEverything])
        .at_home_only()
        .holds(async |scene| {
            let alice = scene.cast("alice").await?;
            let charlie = scene.abroad().cast("charlie").await?;
            let uri = charlie
                .upload(media::ROSE.bytes, media::ROSE.content_type)
                .await?;
            let path = format!("/_matrix/media/v3/download/{}", place(&uri)?);
            for query in [
                "",
                "?allow_remote=true",
                "?allow_remote=true&allow_redirect=true",
            ] {
                let reply = scene
                    .ask(Method::GET, &format!("{path}{query}"))
                    .reply()
                    .await?;
                product(
                    reply.is(404, "M_NOT_FOUND"),
                    "fetch nothing for nobody",
                    format!("{}: {}", reply.asked, reply.told()),
                )?;
            }
            alice.downloads(&uri, media::ROSE.bytes).await?;
            Ok(())
        })
}

/// D4. What clients are told is what is enforced, to the byte: a file of the advertised size is taken, one byte more is
/// refused with 413 `M_TOO_LARGE` and not with something that a client takes for a dead session.
/// Client-Server API, "GET /_matrix/client/v1/media/config", "POST /_matrix/media/v3/upload".
#[test]
fn the_advertised_size_is_taken_and_one_byte_more_is_too_large() -> Outcome {
    claim()
        .notices(&[Mutant::TakesAnything, Mutant::TruncatesMedia])
        .at_home_only()
        .flawed(&[&known::OVERSIZE_DIRECT])
        .differs(OVERSIZE_DIFFERS)
        .holds(async |scene| {
            let alice = scene.cast("alice").await?;
            let told = alice
                .try_raw(Method::GET, "/_matrix/client/v1/media/config", None)
                .await?
                .must()?;
            let size = told["m.upload.size"]
                .as_u64()
                .and_then(|size| usize::try_from(size).ok());
            product(
                size == Some(20_000_000),
                "advertise what the kit sets",
                told.to_string(),
            )?;
            let most = media::pseudo_random(4, size.unwrap_or_default() + 1);
            let uri = alice.upload(&most[1..], "application/octet-stream").await?;
            alice.downloads(&uri, &most[1..]).await?;
            let answer = alice
                .try_upload(&most, "application/octet-stream", None)
                .await?;
            answer.must_be_refused(413, "M_TOO_LARGE")?;
            alice.whoami().await?;
            Ok(())
        })
}

/// Caddy refuses what is too large before Conduit sees it, on purpose: Conduit's own answer looks like a dead session.
const OVERSIZE_DIFFERS: &[(&str, &str)] = &[
    (
        "status of POST /_matrix/media/v3/upload",
        "Conduit answers 401, Caddy 413",
    ),
    (
        "errcode of POST /_matrix/media/v3/upload",
        "Conduit answers `M_MISSING_TOKEN`, Caddy `M_TOO_LARGE`",
    ),
    (
        "header access-control-allow-headers of POST /_matrix/media/v3/upload",
        "Caddy answers web clients by itself, with all that they might ask for",
    ),
    (
        "header access-control-allow-methods of POST /_matrix/media/v3/upload",
        "the same",
    ),
    (
        "header content-security-policy of POST /_matrix/media/v3/upload",
        "Conduit's, against what others uploaded; there is nothing of that kind in Caddy's own answers",
    ),
    (
        "header vary of POST /_matrix/media/v3/upload",
        "Caddy's own answer is the same for every origin",
    ),
    (
        "times that alice asked GET /_matrix/client/v3/account/whoami",
        "where the claim fails as known, what comes behind it is not asked",
    ),
];

/// D1. Names with quotes, spaces and letters beyond ASCII neither break the header nor come back as something else.
/// Client-Server API, "POST /_matrix/media/v3/upload", `filename`; RFC 6266.
#[test]
fn a_strange_file_name_breaks_no_header() -> Outcome {
    claim()
        .notices(&[Mutant::TellsNamesAsGiven])
        .holds(async |scene| {
            let alice = scene.cast("alice").await?;
            for name in [
                "a b.txt",
                "rose \"the best\".png",
                "räubärä.txt",
                "x\r\nset-cookie: a=b.txt",
                ";filename=evil.exe",
            ] {
                let upload = scene
                    .ask(
                        Method::POST,
                        &format!("/_matrix/media/v3/upload?filename={}", encoded(name)),
                    )
                    .bearer("alice", &alice.session().access_token)
                    .body("text/plain", "strange")
                    .reply()
                    .await?;
                // A name may be refused; taken, it must do no harm.
                if upload.status.is_client_error() {
                    continue;
                }
                let uri = upload.json()["content_uri"]
                    .as_str()
                    .map(OwnedMxcUri::from)
                    .ok_or_else(|| {
                        Failure::product("take the file or refuse it").last_seen(upload.told())
                    })?;
                let reply = scene
                    .ask(
                        Method::GET,
                        &format!("/_matrix/client/v1/media/download/{}", place(&uri)?),
                    )
                    .bearer("alice", &alice.session().access_token)
                    .reply()
                    .await?;
                let how = reply
                    .headers
                    .get("content-disposition")
                    .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
                    .unwrap_or_default();
                product(
                    reply.status == 200
                        && reply.body == "strange"
                        && reply.headers.get("set-cookie").is_none(),
                    &format!("give {name:?} back without harm"),
                    format!("{} {how}", reply.told()),
                )?;
                product(
                    !how.contains(";filename=evil") || how.contains("\";filename=evil"),
                    "let no name add a parameter",
                    how,
                )?;
            }
            alice
                .try_raw(Method::GET, "/_matrix/client/v3/account/whoami", None)
                .await?
                .must()?;
            Ok(())
        })
}
