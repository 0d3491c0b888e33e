//! Things by number, with places that are used again only after [`Slab::recycle`]: events that are still to be looked at
//! must not find another one in the place of the one they are about.

/// Things by number.
#[derive(Debug)]
pub(super) struct Slab<T> {
    places: Vec<Option<T>>,
    free: Vec<u32>,
    /// Free after the current events.
    left: Vec<u32>,
    count: usize,
}

impl<T> Default for Slab<T> {
    fn default() -> Slab<T> {
        Slab { places: Vec::new(), free: Vec::new(), left: Vec::new(), count: 0 }
    }
}

impl<T> Slab<T> {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Its number.
    pub(super) fn insert(&mut self, thing: T) -> u32 {
        self.count += 1;
        let index = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            u32::try_from(self.places.len() - 1).expect("limits are far below")
        });
        self.places[index as usize] = Some(thing);
        index
    }

    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        self.places.get_mut(index as usize)?.as_mut()
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<T> {
        let thing = self.places.get_mut(index as usize)?.take()?;
        self.count -= 1;
        self.left.push(index);
        Some(thing)
    }

    pub(super) fn recycle(&mut self) {
        self.free.append(&mut self.left);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0..).zip(&self.places).filter_map(|(index, place)| Some((index, place.as_ref()?)))
    }
}
