//! Reading JSON that need not be what was promised: a field of an unexpected type is a field that is missing.
//!
//! Engines differ (Docker 20.10 to 29, Podman through its compatible API, proxies between), and one odd container must
//! not cost the list it stands in. Only broken JSON is an error; nothing of what is passed over is kept in memory.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A type that can be picked from one kind of JSON value; every other kind is passed over.
pub(crate) trait Lenient: Sized {
    /// From a string.
    fn from_text(_: &str) -> Option<Self> {
        None
    }

    /// From a whole number.
    fn from_integer(_: i64) -> Option<Self> {
        None
    }

    /// From `true` or `false`.
    fn from_flag(_: bool) -> Option<Self> {
        None
    }

    /// From an object.
    fn from_object<'de, A: MapAccess<'de>>(mut object: A) -> Result<Option<Self>, A::Error> {
        while object.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(None)
    }

    /// From an array.
    fn from_array<'de, A: SeqAccess<'de>>(mut array: A) -> Result<Option<Self>, A::Error> {
        while array.next_element::<IgnoredAny>()?.is_some() {}
        Ok(None)
    }
}

/// For `#[serde(deserialize_with)]`: the value, or `None` where it is of another kind.
pub(crate) fn lenient<'de, D: Deserializer<'de>, T: Lenient>(deserializer: D) -> Result<Option<T>, D::Error> {
    deserializer.deserialize_any(Any(PhantomData))
}

/// An element that may be of another kind than expected.
pub(crate) struct Loose<T>(pub(crate) Option<T>);

impl<'de, T: Lenient> Deserialize<'de> for Loose<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        lenient(deserializer).map(Self)
    }
}

struct Any<T>(PhantomData<T>);

impl<'de, T: Lenient> Visitor<'de> for Any<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(T::from_flag(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(T::from_integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(value).ok().and_then(T::from_integer))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(T::from_text(value))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, array: A) -> Result<Self::Value, A::Error> {
        T::from_array(array)
    }

    fn visit_map<A: MapAccess<'de>>(self, object: A) -> Result<Self::Value, A::Error> {
        T::from_object(object)
    }
}

impl Lenient for String {
    fn from_text(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

impl Lenient for i64 {
    fn from_integer(number: i64) -> Option<Self> {
        Some(number)
    }
}

impl Lenient for bool {
    fn from_flag(flag: bool) -> Option<Self> {
        Some(flag)
    }
}

/// Elements of another kind are left out.
impl<T: Lenient> Lenient for Vec<T> {
    fn from_array<'de, A: SeqAccess<'de>>(mut array: A) -> Result<Option<Self>, A::Error> {
        let mut all = Self::new();
        while let Some(Loose(element)) = array.next_element::<Loose<T>>()? {
            all.extend(element);
        }
        Ok(Some(all))
    }
}

/// Entries whose value is no string are left out.
impl Lenient for BTreeMap<String, String> {
    fn from_object<'de, A: MapAccess<'de>>(mut object: A) -> Result<Option<Self>, A::Error> {
        let mut all = Self::new();
        while let Some((name, Loose(value))) = object.next_entry::<String, Loose<String>>()? {
            if let Some(value) = value {
                all.insert(name, value);
            }
        }
        Ok(Some(all))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: Lenient>(json: &str) -> Option<T> {
        serde_json::from_str::<Loose<T>>(json).unwrap().0
    }

    #[test]
    fn a_value_of_another_kind_is_a_missing_value() {
        for odd in ["1", "-1", "1.5", "true", "null", "[1,{}]", r#"{"a":[]}"#] {
            assert_eq!(read::<String>(odd), None, "{odd}");
        }
        for odd in ["\"1\"", "1.5", "true", "null", "[1]", "{}", "18446744073709551615"] {
            assert_eq!(read::<i64>(odd), None, "{odd}");
        }
        assert_eq!(read::<BTreeMap<String, String>>("[]"), None);
        assert_eq!(read::<Vec<String>>(r#"{"a":1}"#), None);
    }

    #[test]
    fn odd_elements_cost_only_themselves() {
        assert_eq!(read::<Vec<String>>(r#"["a",null,{"b":1},"c"]"#), Some(vec!["a".into(), "c".into()]));
        let map = read::<BTreeMap<String, String>>(r#"{"a":"1","b":null,"c":["x"]}"#).unwrap();
        assert_eq!(map.into_iter().collect::<Vec<_>>(), [("a".to_owned(), "1".to_owned())]);
    }
}
