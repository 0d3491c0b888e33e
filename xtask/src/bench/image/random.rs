//! Numbers that look random and are the same for the same seed (splitmix64).

/// The generator.
#[derive(Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`, which is not 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX);
        usize::try_from(self.next() % end).unwrap_or(0)
    }

    /// Between 0 and 1, neither included.
    fn fraction(&mut self) -> f64 {
        let most = f64::from(u32::MAX) + 2.0;
        (f64::from(u32::try_from(self.next() >> 32).unwrap_or(0)) + 1.0) / most
    }

    /// e to the power of a normal deviate of this mean and deviation (Box and Muller), at least 1.
    pub(super) fn lognormal(&mut self, mean: f64, deviation: f64) -> usize {
        let (radius, angle) = ((-2.0 * self.fraction().ln()).sqrt(), std::f64::consts::TAU * self.fraction());
        let value = (mean + deviation * radius * angle.cos()).exp();
        format!("{value:.0}").parse().unwrap_or(1).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_is_as_asked() {
        let mut random = Random::new(1);
        let sum: usize = (0..20_000).map(|_| random.lognormal(8.2, 1.0)).sum();
        // e ^ (8.2 + 1/2)
        assert!((5_700..6_300).contains(&(sum / 20_000)), "{}", sum / 20_000);
    }
}
