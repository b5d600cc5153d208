//! What it costs to register a transform and to call one by its name, whatever the number of transforms.
//!
//! ```sh
//! cargo bench --bench registry
//! ```

use std::hint::black_box;
use std::time::Instant;

use flyloft::build::transform::{Context, Input, NoFiles, NoParameters, Output, Transform, TransformRegistry};
use flyloft::{AssetPath, Result};

mod support;

const ROUNDS: usize = 201;
const CALLS: usize = 20_000;

/// Makes nothing of anything, so that what is measured is how it is reached.
struct Nothing(String);

impl Transform for Nothing {
    type Parameters = NoParameters;
    fn name(&self) -> &str {
        &self.0
    }
    fn version(&self) -> u32 {
        1
    }
    fn run(&self, input: Input<'_>, _: &NoParameters, _: &mut dyn Context) -> Result<Output> {
        black_box(input.bytes);
        Ok(Output::default())
    }
}

fn main() -> Result<()> {
    println!(
        "ns, median of {ROUNDS} rounds; registered one after the other into an empty registry, called by name in turn"
    );
    support::head(&["transforms", "to register one", "to call one"]);
    let path = AssetPath::new("a/b.txt")?;
    for count in [10, 100, 1_000, 10_000] {
        let names: Vec<String> = (0..count).map(|number| format!("transform-{number}")).collect();
        let (mut register, mut call) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let all: Vec<Nothing> = names.iter().map(|name| Nothing(name.clone())).collect();
            let mut registry = TransformRegistry::new();
            let began = Instant::now();
            for transform in all {
                registry.register(transform)?;
            }
            register.push(began.elapsed().as_nanos() as f64 / count as f64);
            let began = Instant::now();
            for number in 0..CALLS {
                let name = &names[number * 7919 % count];
                let output = registry.call(name, Input { path: &path, bytes: b"" }, &NoParameters {}, &mut NoFiles)?;
                black_box(output);
            }
            call.push(began.elapsed().as_nanos() as f64 / CALLS as f64);
        }
        let cell = |values: Vec<f64>| format!("{:.0}", support::median(values));
        support::row(&[support::count(count as f64), cell(register), cell(call)]);
    }
    Ok(())
}
