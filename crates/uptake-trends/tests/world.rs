//! The scorer in the simulated world, against the oracle and against counts and growth.

mod world;

use uptake_trends::Options;
use world::{Chooser, World, live};

/// 4 days, the first of them to warm up; `cargo run --release -p uptake-trends --example world` has
/// longer runs and more ways to choose.
#[test]
fn the_row_is_near_the_oracle_and_quiet() {
    let world = World::new(7, 192);
    let of = |chooser, crowd| live(&world, chooser, crowd, 48, 11, Options::default());
    for (crowd, share_min) in [(200_000.0, SHARE_LARGE), (20_000.0, SHARE_SMALL)] {
        let loved = of(Chooser::Loved, crowd);
        let (plays, growth) = (of(Chooser::Plays, crowd), of(Chooser::Growth, crowd));
        println!("{crowd}: loved {loved:?}\n plays {plays:?}\n growth {growth:?}");
        assert!(loved.share >= share_min, "{crowd}: {loved:?}");
        assert!(loved.churn <= 0.12, "{crowd}: {loved:?}");
        assert!(loved.share > plays.share && loved.share > growth.share, "{plays:?} {growth:?}");
    }
}

const SHARE_LARGE: f64 = 0.93;
const SHARE_SMALL: f64 = 0.80;
