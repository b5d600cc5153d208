//! `[places]`: where assets are.

use toml::de::DeValue;

use super::{Key, Node, Parser, Result};
use crate::config::{Level, PLACES_MAX, Place};
use crate::ids::{AssetId, AssetPath};

impl Parser<'_> {
    /// Places by path: a table, or an array of tables for an asset that is in several places. In path order.
    pub(super) fn places(&mut self, node: &Node<'_>) -> Result<Vec<(AssetPath, Place)>> {
        let DeValue::Table(table) = node.get_ref() else {
            return self.expected(node, "a table: write [places]");
        };
        let mut all: Vec<(AssetPath, Place)> = Vec::new();
        for (key, value) in table {
            match self.places_of(key, value) {
                Ok((path, places)) => all.extend(places.into_iter().map(|place| (path.clone(), place))),
                Err(mistake) => self.note(mistake),
            }
        }
        if all.len() > PLACES_MAX {
            return Err(self.error(node.span(), format!("there are {} places; at most {PLACES_MAX}", all.len())));
        }
        all.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(all)
    }

    fn places_of(&self, key: &Key<'_>, value: &Node<'_>) -> Result<(AssetPath, Vec<Place>)> {
        let path = self.path(key.get_ref(), key.span())?;
        let places = match value.get_ref() {
            DeValue::Array(items) => items.iter().map(|item| self.place(item)).collect::<Result<_>>()?,
            _ => vec![self.place(value)?],
        };
        Ok((path, places))
    }

    fn place(&self, node: &Node<'_>) -> Result<Place> {
        let DeValue::Table(table) = node.get_ref() else {
            return self.expected(node, "a table with at, and radius, importance or levels");
        };
        let mut place = Place::default();
        let mut at = None;
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "at" => at = Some(self.position(value)?),
                "radius" => place.radius_m = self.number(value)?,
                "importance" => place.importance = self.number(value)?,
                "levels" => place.levels = self.levels(value)?,
                _ => return Err(self.unknown(key, &["at", "radius", "importance", "levels"])),
            }
        }
        place.at = at.ok_or_else(|| self.error(node.span(), "this place has no at = [x, y, z]"))?;
        match place.fault() {
            None => Ok(place),
            Some((field, why)) => {
                let culprit = table.iter().find(|(key, _)| key.get_ref() == field).map(|(_, value)| value.span());
                Err(self.error(culprit.unwrap_or_else(|| node.span()), why))
            }
        }
    }

    fn position(&self, node: &Node<'_>) -> Result<[f32; 3]> {
        let what = "three numbers, [x, y, z]";
        let DeValue::Array(items) = node.get_ref() else { return self.expected(node, what) };
        let parts = items.iter().map(|item| self.number(item)).collect::<Result<Vec<f32>>>()?;
        parts.try_into().map_err(|parts: Vec<f32>| {
            self.error(node.span(), format!("expected {what}, found {} of them", parts.len()))
        })
    }

    fn levels(&self, node: &Node<'_>) -> Result<Vec<Level>> {
        let what = "an array of tables with distance and asset";
        let DeValue::Array(items) = node.get_ref() else { return self.expected(node, what) };
        let level = |item: &Node<'_>| {
            let DeValue::Table(table) = item.get_ref() else {
                return self.expected(item, "a table with distance and asset");
            };
            let (mut distance_m, mut asset) = (None, None);
            for (key, value) in table {
                match key.get_ref().as_ref() {
                    "distance" => distance_m = Some(self.number(value)?),
                    "asset" => {
                        let path = self.path(self.string(value, "the path of an asset")?, value.span())?;
                        asset = Some(AssetId::from(&path));
                    }
                    _ => return Err(self.unknown(key, &["distance", "asset"])),
                }
            }
            let missing = |what: &str| self.error(item.span(), format!("this level has no {what}"));
            let distance_m = distance_m.ok_or_else(|| missing("distance"))?;
            Ok(Level { distance_m, asset: asset.ok_or_else(|| missing("asset"))? })
        };
        items.iter().map(level).collect()
    }

    /// An integer is a number, too.
    fn number(&self, node: &Node<'_>) -> Result<f32> {
        let number = match node.get_ref() {
            DeValue::Integer(integer) => {
                i64::from_str_radix(integer.as_str(), integer.radix()).ok().map(|integer| integer as f32)
            }
            DeValue::Float(float) => float.as_str().parse().ok(),
            _ => None,
        };
        number.map_or_else(|| self.expected(node, "a number"), Ok)
    }
}
