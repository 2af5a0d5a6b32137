//! As much of HTTP/1.1 as Caddy and curl need: kept connections, `Content-Length` and chunked bodies.

use std::{
    io::{self, BufRead, BufReader, Read as _, Write as _},
    net::TcpStream,
};

/// Longest accepted head, bytes.
const HEAD_MOST: u64 = 64 * 1024;
/// Longest accepted body, bytes: Conduit's default `max_request_size`.
const BODY_MOST: u64 = 20 * 1024 * 1024;

/// One request.
#[derive(Debug)]
pub struct Request {
    pub method: String,
    /// Without its query.
    pub path: String,
    pub body: Vec<u8>,
}

/// What to do with a request.
#[derive(Debug)]
pub enum Reply {
    /// Answer with a status, a content type and a body.
    Answer(u16, &'static str, String),
    /// Take the request and never answer, until the client goes away.
    Never,
}

/// Answers requests from `stream` until the other side closes it or sends something that is not HTTP.
pub fn converse(stream: TcpStream, answer: impl Fn(&Request) -> Reply) {
    // A client that goes away is its own business.
    let _ = exchange(stream, answer);
}

fn exchange(stream: TcpStream, answer: impl Fn(&Request) -> Reply) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    while let Some((request, keep)) = read_request(&mut reader, &mut writer)? {
        match answer(&request) {
            Reply::Answer(status, content_type, body) => {
                let connection = if keep { "keep-alive" } else { "close" };
                let sent = if request.method == "HEAD" {
                    ""
                } else {
                    body.as_str()
                };
                write!(
                    writer,
                    "HTTP/1.1 {status} {}\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\
                     access-control-allow-origin: *\r\nconnection: {connection}\r\n\r\n{sent}",
                    reason(status),
                    body.len(),
                )?;
            }
            Reply::Never => {
                io::copy(&mut reader, &mut io::sink())?;
                return Ok(());
            }
        }
        if !keep {
            return Ok(());
        }
    }
    Ok(())
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        _ => "Internal Server Error",
    }
}

/// The next request and whether the connection stays open after it; `None` when the client closed it.
fn read_request(
    reader: &mut impl BufRead,
    writer: &mut impl io::Write,
) -> io::Result<Option<(Request, bool)>> {
    let mut head = reader.take(HEAD_MOST);
    let mut line = String::new();
    if head.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (Some(method), Some(target), Some(version)) = (words.next(), words.next(), words.next())
    else {
        return Err(io::ErrorKind::InvalidData.into());
    };
    let (method, version) = (method.to_owned(), version.to_owned());
    let path = target.split('?').next().unwrap_or_default().to_owned();

    let (mut length, mut chunked, mut keep) = (0_u64, false, version != "HTTP/1.0");
    loop {
        let mut line = String::new();
        if head.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().map_err(|_| io::ErrorKind::InvalidData)?,
            "transfer-encoding" => chunked = value.eq_ignore_ascii_case("chunked"),
            "connection" => keep = !value.eq_ignore_ascii_case("close"),
            "expect" => writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?,
            _ => {}
        }
    }
    let reader = head.into_inner();
    let body = if chunked {
        read_chunks(reader)?
    } else {
        read_exactly(reader, length)?
    };
    Ok(Some((Request { method, path, body }, keep)))
}

fn read_exactly(reader: &mut impl BufRead, length: u64) -> io::Result<Vec<u8>> {
    if length > BODY_MOST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = Vec::new();
    if reader.take(length).read_to_end(&mut body)? as u64 == length {
        Ok(body)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

fn read_chunks(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let length = u64::from_str_radix(digits, 16).map_err(|_| io::ErrorKind::InvalidData)?;
        body.extend(read_exactly(reader, length)?);
        if body.len() as u64 > BODY_MOST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        // The line feed after a chunk; after the last one, trailers up to an empty line.
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 || line.trim_end().is_empty() {
                break;
            }
        }
        if length == 0 {
            return Ok(body);
        }
    }
}
