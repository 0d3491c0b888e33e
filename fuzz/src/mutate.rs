//! JSON that is nearly right: mostly one to a few nodes of a seed are changed, at times its bytes.

use std::collections::BTreeSet;

use serde_json::{Map, Number, Value};

use crate::random::Random;

/// Texts that programs trip over: limits, paths that lead elsewhere, other scripts, formats.
const TEXTS: [&str; 26] = [
    "",
    "/",
    ".",
    "..",
    "../../etc",
    "/proc/self/exe",
    "/proc/1/ns/net",
    "/dev/null",
    "a\u{0}b",
    "a\nb",
    "\u{202e}x",
    "%s%n",
    "max",
    "-1",
    "0-",
    "0-4294967295",
    "1,,2",
    "9223372036854775808",
    "system.slice:a:b",
    "L3:0=f",
    "bind",
    "rbind,ro",
    "tmpfs",
    "SCMP_ACT_NOTIFY",
    "SCMP_ARCH_X32",
    "CAP_SYS_ADMIN",
];

const NUMBERS: [i64; 14] = [
    0,
    1,
    -1,
    2,
    31,
    63,
    64,
    65_535,
    4_294_967_295,
    4_294_967_296,
    -2_147_483_649,
    i64::MAX,
    i64::MIN,
    1_000_000,
];

/// All names of members in the seeds.
pub(crate) fn keys(seeds: &[Value]) -> Vec<String> {
    fn collect(value: &Value, keys: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => members.iter().for_each(|(key, value)| {
                keys.insert(key.clone());
                collect(value, keys);
            }),
            Value::Array(values) => values.iter().for_each(|value| collect(value, keys)),
            _ => {}
        }
    }
    let mut keys = BTreeSet::new();
    seeds.iter().for_each(|seed| collect(seed, &mut keys));
    keys.into_iter().collect()
}

pub(crate) fn mutated(seeds: &[Value], keys: &[String], random: &mut Random) -> Vec<u8> {
    let mut value = random.one(seeds).clone();
    for _ in 0..=random.below(4) {
        let donor = random.one(seeds);
        let part = at(donor, random.below(count(donor))).clone();
        let place = random.below(count(&value));
        change(at_mut(&mut value, place), part, keys, random);
    }
    let mut text = value.to_string().into_bytes();
    if random.once_in(8) {
        change_bytes(&mut text, random);
    }
    text
}

fn change(node: &mut Value, part: Value, keys: &[String], random: &mut Random) {
    match (random.below(5), &mut *node) {
        (0, _) => *node = part,
        (1, Value::Object(members)) if !members.is_empty() => {
            let names: Vec<String> = members.keys().cloned().collect();
            members.remove(random.one(&names));
        }
        (2, Value::Object(members)) => {
            let value = if random.once_in(2) { part } else { anything(random, keys) };
            members.insert(random.one(keys).clone(), value);
        }
        (1, Value::Array(values)) if !values.is_empty() => {
            values.remove(random.below(values.len()));
        }
        (2, Value::Array(values)) if !values.is_empty() => {
            let again = random.one(values).clone();
            let times = if random.once_in(10) { 500 } else { 1 };
            values.extend(std::iter::repeat_n(again, times));
        }
        (3, Value::String(text)) => *text = changed_text(text, random),
        (3, Value::Number(number)) => *number = Number::from(random.next() >> random.below(64)),
        _ => *node = anything(random, keys),
    }
}

fn anything(random: &mut Random, keys: &[String]) -> Value {
    match random.below(9) {
        0 => Value::Null,
        1 => Value::Bool(random.once_in(2)),
        2 | 3 => (*random.one(&NUMBERS)).into(),
        4 | 5 => (*random.one(&TEXTS)).into(),
        6 => Value::Array(vec![(*random.one(&TEXTS)).into()]),
        7 => Value::Object(Map::from_iter([(random.one(keys).clone(), (*random.one(&NUMBERS)).into())])),
        _ => serde_json::json!(1.5e300),
    }
}

fn changed_text(text: &str, random: &mut Random) -> String {
    let letters: Vec<char> = text.chars().collect();
    let at = random.below(letters.len() + 1);
    let (before, after) = letters.split_at(at);
    let middle = match random.below(5) {
        0 => String::new(),
        1 => "x".repeat(random.below(5000)),
        2 => "/..".repeat(1 + random.below(20)),
        _ => (*random.one(&TEXTS)).to_owned(),
    };
    let skip = after.len().min(random.below(3));
    before.iter().collect::<String>() + &middle + &after[skip..].iter().collect::<String>()
}

fn change_bytes(text: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(4) {
        if text.is_empty() {
            return;
        }
        let at = random.below(text.len());
        match random.below(4) {
            0 => text.truncate(at),
            1 => text[at] ^= 1 << random.below(8),
            2 => drop(text.remove(at)),
            _ => {
                let deep = if random.once_in(2) {
                    b"[".repeat(300)
                } else {
                    vec![*random.one(b"{}[],:\"\\0e-\xff")]
                };
                text.splice(at..at, deep);
            }
        }
    }
}

/// The number of nodes, the root included.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Object(members) => members.values().map(count).sum(),
        Value::Array(values) => values.iter().map(count).sum(),
        _ => 0,
    }
}

/// The node of that number, the root being 0.
fn at(value: &Value, number: usize) -> &Value {
    if number == 0 {
        return value;
    }
    let mut left = number - 1;
    let children: Box<dyn Iterator<Item = &Value>> = match value {
        Value::Object(members) => Box::new(members.values()),
        Value::Array(values) => Box::new(values.iter()),
        _ => Box::new(std::iter::empty()),
    };
    for child in children {
        let size = count(child);
        if left < size {
            return at(child, left);
        }
        left -= size;
    }
    value
}

fn at_mut(value: &mut Value, number: usize) -> &mut Value {
    if number == 0 {
        return value;
    }
    let mut left = number - 1;
    let children: Box<dyn Iterator<Item = &mut Value>> = match value {
        Value::Object(members) => Box::new(members.values_mut()),
        Value::Array(values) => Box::new(values.iter_mut()),
        _ => unreachable!("a number is below the count of nodes"),
    };
    for child in children {
        let size = count(child);
        if left < size {
            return at_mut(child, left);
        }
        left -= size;
    }
    unreachable!("a number is below the count of nodes")
}
