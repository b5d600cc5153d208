//! What of the memory budget a program may set beside its size: who may have the last of it, and what happens as it
//! fills.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How a budget is shared and what happens as it fills. Its size is [`super::RuntimeConfig::budget_bytes`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BudgetConfig {
    /// Bytes of what may be resident that only critical requests are charged to, so that one finds room at once, however
    /// much else wants to be loaded. Default 0.
    pub critical_reserve_bytes: u64,
    /// Where the pressure is elevated, high and critical, in percent of what may be resident. What is merely cached, and
    /// could be evicted, does not count: a full cache is no pressure. Default 70, 85, 95.
    pub thresholds_percent: [u8; 3],
    /// A level ends only this many points of percentage below where it begins. Default 5.
    pub hysteresis_percent: u8,
    /// When the budget is nearly full, what is merely cached is evicted ahead of need, down to this part of what may be
    /// resident, in percent, so that a load seldom waits for an eviction; 100 for not ahead of need. Default 98.
    pub target_percent: u8,
    /// Whether the budget gives way when the machine, or the control group that this process is in, runs short of memory,
    /// and takes it back later. Default `true`.
    pub outside: bool,
    /// How often it is looked at how much memory there is, 100 ms to 60 s. Default 1 s.
    pub sample: Duration,
    /// The part of the memory that this process may use, in percent, from which on the budget is made smaller.
    /// Default 75.
    pub shrink_percent: u8,
    /// The part from which on the budget is what is in use by somebody, and no more. Default 90.
    pub emergency_percent: u8,
    /// The part of the last 10 s in which something waited for memory, in percent, from which on the budget is made
    /// smaller, where the system says. Default 10.
    pub stall_percent: u8,
}

impl Default for BudgetConfig {
    fn default() -> Self {
        Self {
            critical_reserve_bytes: 0,
            thresholds_percent: [70, 85, 95],
            hysteresis_percent: 5,
            target_percent: 98,
            outside: true,
            sample: Duration::from_secs(1),
            shrink_percent: 75,
            emergency_percent: 90,
            stall_percent: 10,
        }
    }
}

impl BudgetConfig {
    /// Checks every field, for a budget of which `resident_bytes_max` may be resident.
    ///
    /// # Errors
    /// [`Error::Config`] with the name of the first field that cannot be used.
    pub fn validate(&self, resident_bytes_max: u64) -> Result<()> {
        let refuse = |field: &str, why: String| Err(Error::config(format!("budget.{field}"), why));
        if self.critical_reserve_bytes >= resident_bytes_max.max(1) {
            let why = format!(
                "{} leaves nothing of the {resident_bytes_max} bytes that may be resident",
                self.critical_reserve_bytes
            );
            return refuse("critical_reserve_bytes", why);
        }
        let [elevated, high, critical] = self.thresholds_percent;
        if !(1 <= elevated && elevated < high && high < critical && critical <= 100) {
            let why = format!("{elevated}, {high}, {critical} do not rise within 1 to 100");
            return refuse("thresholds_percent", why);
        }
        if self.hysteresis_percent >= elevated {
            let why = format!("{} is not below the first of thresholds_percent, {elevated}", self.hysteresis_percent);
            return refuse("hysteresis_percent", why);
        }
        if !(1..=100).contains(&self.target_percent) {
            return refuse("target_percent", format!("{} is not within 1 to 100", self.target_percent));
        }
        if !(Duration::from_millis(100)..=Duration::from_secs(60)).contains(&self.sample) {
            return refuse("sample", "it is not within 100 ms to 60 s".to_owned());
        }
        if !(1..=99).contains(&self.shrink_percent) {
            return refuse("shrink_percent", format!("{} is not within 1 to 99", self.shrink_percent));
        }
        if !(self.shrink_percent + 1..=100).contains(&self.emergency_percent) {
            let why = format!(
                "{} is not above shrink_percent, {}, and at most 100",
                self.emergency_percent, self.shrink_percent
            );
            return refuse("emergency_percent", why);
        }
        if !(1..=100).contains(&self.stall_percent) {
            return refuse("stall_percent", format!("{} is not within 1 to 100", self.stall_percent));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_hold_is_refused_by_name() {
        BudgetConfig::default().validate(100).unwrap();
        let check = |field: &str, change: fn(&mut BudgetConfig)| {
            let mut config = BudgetConfig::default();
            change(&mut config);
            let error = config.validate(100).unwrap_err().to_string();
            assert!(error.starts_with(&format!("budget.{field}: ")), "{error}");
        };
        check("critical_reserve_bytes", |config| config.critical_reserve_bytes = 100);
        check("thresholds_percent", |config| config.thresholds_percent = [70, 70, 95]);
        check("thresholds_percent", |config| config.thresholds_percent = [0, 70, 95]);
        check("thresholds_percent", |config| config.thresholds_percent = [70, 85, 101]);
        check("thresholds_percent", |config| config.thresholds_percent = [95, 85, 70]);
        check("hysteresis_percent", |config| config.hysteresis_percent = 70);
        check("target_percent", |config| config.target_percent = 0);
        check("target_percent", |config| config.target_percent = 101);
        check("sample", |config| config.sample = Duration::ZERO);
        check("shrink_percent", |config| config.shrink_percent = 0);
        check("shrink_percent", |config| config.shrink_percent = 100);
        check("emergency_percent", |config| config.emergency_percent = 75);
        check("emergency_percent", |config| config.emergency_percent = 101);
        check("stall_percent", |config| config.stall_percent = 0);
    }
}
