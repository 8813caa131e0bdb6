//! Media types of files, by the extensions of their names.

/// The media type of a file with this extension. Text is served as UTF-8.
pub(super) fn media_type(extension: &str) -> &'static str {
    let known = TYPES.iter().find(|(known, _)| known.eq_ignore_ascii_case(extension));
    // Browsers save files of an unknown type.
    known.map_or("application/octet-stream", |&(_, media_type)| media_type)
}

/// The types of files in web pages, as registered with IANA.
#[rustfmt::skip]
const TYPES: &[(&str, &str)] = &[
    ("html", "text/html; charset=utf-8"),
    ("htm", "text/html; charset=utf-8"),
    ("css", "text/css; charset=utf-8"),
    ("js", "text/javascript; charset=utf-8"),
    ("mjs", "text/javascript; charset=utf-8"),
    ("txt", "text/plain; charset=utf-8"),
    ("md", "text/markdown; charset=utf-8"),
    ("csv", "text/csv; charset=utf-8"),
    ("xml", "text/xml; charset=utf-8"),
    ("svg", "image/svg+xml"),
    ("json", "application/json"),
    ("map", "application/json"),
    ("webmanifest", "application/manifest+json"),
    ("wasm", "application/wasm"),
    ("pdf", "application/pdf"),
    ("zip", "application/zip"),
    ("gz", "application/gzip"),
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("gif", "image/gif"),
    ("webp", "image/webp"),
    ("avif", "image/avif"),
    ("ico", "image/vnd.microsoft.icon"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
    ("ttf", "font/ttf"),
    ("otf", "font/otf"),
    ("mp3", "audio/mpeg"),
    ("ogg", "audio/ogg"),
    ("mp4", "video/mp4"),
    ("webm", "video/webm"),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Extensions are found in any case of letters, each is listed once, and the types of texts
    /// name their charset.
    #[test]
    fn extensions_have_types() {
        assert_eq!(media_type("HTML"), "text/html; charset=utf-8");
        for unknown in ["", "tar", "htmlx"] {
            assert_eq!(media_type(unknown), "application/octet-stream", "{unknown:?}");
        }
        for (extension, known) in TYPES {
            assert_eq!(media_type(extension), *known, "{extension} is there twice");
            assert_eq!(known.starts_with("text/"), known.ends_with("; charset=utf-8"), "{known}");
        }
    }
}
