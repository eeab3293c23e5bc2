//! The scorer in the simulated world, against the oracle and against counts and growth.

#[allow(dead_code, reason = "the example has more ways to choose")]
mod world;

use uptake_trends::{Options, RowOptions};
use world::{Chooser, World, live};

/// 3 days, the first of them to warm up; `cargo run --release -p uptake-trends --example world` has
/// longer runs, more ways to choose, and a busier world.
#[test]
fn the_row_is_near_the_oracle_and_quiet() {
    let world = World::new(7, 144, 60.0);
    let of = |chooser, crowd, drawn| {
        live(&world, chooser, crowd, 48, 11, Options::default(), (&RowOptions::default(), drawn))
    };
    // What the example measures over other seeds, less what one short run may differ.
    for (crowd, share_min) in [(200_000.0, 0.90), (20_000.0, 0.80)] {
        let loved = of(Chooser::Loved, crowd, 1);
        let (plays, growth) = (of(Chooser::Plays, crowd, 0), of(Chooser::Growth, crowd, 0));
        println!("{crowd}: loved {loved:?}\n plays {plays:?}\n growth {growth:?}");
        assert!(loved.share >= share_min, "{crowd}: {loved:?}");
        assert!(loved.churn <= 0.12, "{crowd}: {loved:?}");
        assert!(loved.share > plays.share + 0.1 && loved.share > growth.share + 0.1, "{plays:?} {growth:?}");
    }
}
