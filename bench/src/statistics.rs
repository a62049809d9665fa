//! Medians with their intervals.

/// A median and the ends of its 95% interval.
#[derive(Clone, Copy, Debug)]
pub struct Median {
    /// Low end.
    pub low: f64,
    /// The median.
    pub value: f64,
    /// High end.
    pub high: f64,
}

impl Median {
    /// The median of `samples`; the interval by order statistics (the binomial's normal
    /// approximation), which assumes nothing of their distribution.
    pub fn of(samples: &mut [f64]) -> Self {
        samples.sort_by(f64::total_cmp);
        let n = samples.len() as f64;
        let at = |rank: f64| samples[(rank.max(0.0) as usize).min(samples.len() - 1)];
        let reach = 1.96 * n.sqrt() / 2.0;
        Self {
            low: at((n / 2.0 - reach).floor()),
            value: at((n / 2.0).floor()),
            high: at((n / 2.0 + reach).ceil()),
        }
    }
}

/// The sample below which `share` of all lie.
pub fn quantile(samples: &mut [f64], share: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    let last = samples.len() - 1;
    samples[((last as f64 * share).round() as usize).min(last)]
}
