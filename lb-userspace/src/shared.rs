//! A value that its clones share until one of them changes.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

/// Cloning costs nothing. The first change of a clone copies the value.
#[derive(Debug, Default)]
pub struct Shared<T>(Arc<T>);

impl<T> Shared<T> {
    /// Do both share the same allocation, and so the same value?
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> From<T> for Shared<T> {
    fn from(value: T) -> Self {
        Self(Arc::new(value))
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Clone> DerefMut for Shared<T> {
    fn deref_mut(&mut self) -> &mut T {
        Arc::make_mut(&mut self.0)
    }
}

impl<T: PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        self.is_same(other) || *self.0 == *other.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_is_the_same_until_it_changes() {
        let first: Shared<Vec<u8>> = vec![1].into();
        let mut second = first.clone();
        assert!(second.is_same(&first));

        second.push(2);

        assert_eq!((&*first, &*second), (&vec![1], &vec![1, 2]));
        assert!(!second.is_same(&first) && second != first);
    }

    #[test]
    fn equal_values_are_equal_whether_shared_or_not() {
        let first: Shared<Vec<u8>> = vec![1].into();
        let second: Shared<Vec<u8>> = vec![1].into();

        assert!(first == second && !first.is_same(&second));
    }
}
