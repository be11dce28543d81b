//! The bytes of stream names, packed into segments.

const GRANULE: usize = 8;
/// The size of a segment, which is greater than the longest name.
const SEGMENT: usize = 1 << 18;
const GRANULES: usize = SEGMENT / GRANULE;
/// The first size of the first segment, which doubles until it is a whole one: most pipelines have few streams.
const FIRST_SIZE: usize = 1 << 12;

/// Names by place. A released place is reused for a name of about the same length.
#[derive(Debug, Default)]
pub(super) struct Names {
    segments: Vec<Box<[u8]>>,
    /// Granules used in the last segment.
    used: usize,
    /// Released places, by their number of granules.
    free: Vec<Vec<u32>>,
}

impl Names {
    /// Stores a name and returns its place.
    #[inline]
    pub(super) fn add(&mut self, name: &[u8]) -> u32 {
        let granules = granules(name.len());
        let released = self.free.get_mut(granules).and_then(Vec::pop);
        let place = released.unwrap_or_else(|| self.append(granules));
        self.bytes_mut(place)[..name.len()].copy_from_slice(name);
        place
    }

    #[inline]
    fn append(&mut self, granules: usize) -> u32 {
        while self.segments.last().is_none_or(|last| (self.used + granules) * GRANULE > last.len()) {
            self.grow();
        }
        let place = (self.segments.len() - 1) * GRANULES + self.used;
        self.used += granules;
        u32::try_from(place).expect("names take less than 32 GiB")
    }

    #[cold]
    fn grow(&mut self) {
        match &mut *self.segments {
            [only] if only.len() < SEGMENT => {
                let mut larger = vec![0; only.len() * 2];
                larger[..only.len()].copy_from_slice(only);
                *only = larger.into_boxed_slice();
            }
            segments => {
                let size = if segments.is_empty() { FIRST_SIZE } else { SEGMENT };
                self.segments.push(vec![0; size].into_boxed_slice());
                self.used = 0;
            }
        }
    }

    #[inline]
    pub(super) fn get(&self, place: u32, len: u16) -> &[u8] {
        let place = place as usize;
        &self.segments[place / GRANULES][place % GRANULES * GRANULE..][..usize::from(len)]
    }

    /// Returns whether a place holds this name.
    #[inline]
    pub(super) fn is(&self, place: u32, len: u16, name: &[u8]) -> bool {
        equal(self.get(place, len), name)
    }

    /// Reads both ends of a name: it may stand in two cache lines. Returns anything.
    #[inline]
    pub(super) fn ends(&self, place: u32, len: u16) -> u8 {
        let name = self.get(place, len);
        name.first().unwrap_or(&0) ^ name.last().unwrap_or(&0)
    }

    /// Releases the place of a name of this length.
    pub(super) fn remove(&mut self, place: u32, len: u16) {
        let granules = granules(usize::from(len));
        if granules >= self.free.len() {
            self.free.resize_with(granules + 1, Vec::new);
        }
        self.free[granules].push(place);
    }

    #[inline]
    fn bytes_mut(&mut self, place: u32) -> &mut [u8] {
        let place = place as usize;
        &mut self.segments[place / GRANULES][place % GRANULES * GRANULE..]
    }
}

/// Compares names. Most have 8 to 32 bytes: comparing those as words costs less than a call of `memcmp`.
#[inline]
fn equal(a: &[u8], b: &[u8]) -> bool {
    let len = a.len();
    if len != b.len() {
        return false;
    }
    if !(8..=32).contains(&len) {
        return a == b;
    }
    let (Some((a_end, b_end)), (a_words, _), (b_words, _)) =
        (a.last_chunk::<8>().zip(b.last_chunk::<8>()), a.as_chunks::<8>(), b.as_chunks::<8>())
    else {
        return a == b;
    };
    let differ = |a: &[u8; 8], b: &[u8; 8]| u64::from_ne_bytes(*a) ^ u64::from_ne_bytes(*b);
    // The last word overlaps the one before unless the length is a multiple of 8.
    a_words.iter().zip(b_words).fold(differ(a_end, b_end), |all, (a, b)| all | differ(a, b)) == 0
}

/// An empty name takes a place, too, so that every name has one.
#[inline]
fn granules(len: usize) -> usize {
    len.div_ceil(GRANULE).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_equal_if_every_byte_is() {
        for len in 0..70 {
            let name: Vec<u8> = (0..len).collect();
            assert!(equal(&name, &name.clone()));
            assert!(!equal(&name, &[&name[..], &[0]].concat()));
            for at in 0..usize::from(len) {
                let mut other = name.clone();
                other[at] ^= 0x80;
                assert!(!equal(&name, &other), "{len} {at}");
            }
        }
    }

    #[test]
    fn names_are_stored_unchanged_and_their_places_are_reused() {
        let mut names = Names::default();
        let long = vec![b'x'; usize::from(u16::MAX)];
        let places: Vec<_> = (0..20).map(|_| names.add(&long)).collect();
        let (short, empty) = (names.add(b"order-1"), names.add(b""));
        assert!(places.iter().all(|&place| names.get(place, u16::MAX) == long));
        assert_eq!((names.get(short, 7), names.get(empty, 0)), (&b"order-1"[..], &b""[..]));
        names.remove(short, 7);
        assert_eq!(names.add(b"order-12"), short, "a name of as many granules takes its place");
        assert_ne!(names.add(b"order-2"), short);
    }
}
