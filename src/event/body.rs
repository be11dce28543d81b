//! The form of an event's data and metadata, as the source stored them.

/// The form of a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Format {
    pub content: ContentType,
    pub encoding: Encoding,
}

impl Format {
    /// Returns the number of the form, for a store. It never changes its meaning.
    pub fn code(self) -> u8 {
        PackedFormat::new(self).0
    }

    /// Returns the form of a number; an unknown number says nothing about the body.
    pub fn of_code(code: u8) -> Self {
        PackedFormat(code).get()
    }
}

/// The content type of a body, before it was encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContentType {
    /// The source does not say. Bodies are usually JSON.
    #[default]
    Unknown,
    Json,
    Text,
    Binary,
}

/// The compression of a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encoding {
    #[default]
    Identity,
    Deflate,
    Gzip,
    Brotli,
}

/// A [`Format`] in one byte, so that an event stays small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PackedFormat(u8);

impl PackedFormat {
    pub(super) const fn new(format: Format) -> Self {
        Self(format.content as u8 | (format.encoding as u8) << 4)
    }

    pub(super) const fn get(self) -> Format {
        let content = match self.0 & 0xf {
            1 => ContentType::Json,
            2 => ContentType::Text,
            3 => ContentType::Binary,
            _ => ContentType::Unknown,
        };
        let encoding = match self.0 >> 4 {
            1 => Encoding::Deflate,
            2 => Encoding::Gzip,
            3 => Encoding::Brotli,
            _ => Encoding::Identity,
        };
        Format { content, encoding }
    }
}
