// Sea haze that creeps over the boards: one full-screen triangle, laid over the picture.

struct Haze {
    seconds: f32,
    density: f32, // 0 clear to 1 thick
    aspect: f32,  // width over height
    floor_y: f32, // where the boards meet the backdrop, 0 top to 1 bottom
}

@group(0) @binding(0) var<uniform> haze: Haze;

struct Corner {
    @builtin(position) clip: vec4<f32>,
    @location(0) uv: vec2<f32>,
}

@vertex
fn corner(@builtin(vertex_index) index: u32) -> Corner {
    let uv = vec2<f32>(f32((index << 1u) & 2u), f32(index & 2u));
    return Corner(vec4<f32>(uv.x * 2.0 - 1.0, 1.0 - uv.y * 2.0, 0.0, 1.0), uv);
}

fn hash21(p: vec2<f32>) -> f32 {
    let q = fract(p * vec2<f32>(123.34, 456.21));
    let r = q + dot(q, q + 45.32);
    return fract(r.x * r.y);
}

fn value_noise(p: vec2<f32>) -> f32 {
    let cell = floor(p);
    let part = fract(p);
    let blend = part * part * (3.0 - 2.0 * part);
    let low = mix(hash21(cell), hash21(cell + vec2<f32>(1.0, 0.0)), blend.x);
    let high = mix(hash21(cell + vec2<f32>(0.0, 1.0)), hash21(cell + vec2<f32>(1.0, 1.0)), blend.x);
    return mix(low, high, blend.y);
}

@fragment
fn lay(in: Corner) -> @location(0) vec4<f32> {
    let drift = vec2<f32>(haze.seconds * 0.05, 0.0);
    var thick = 0.0;
    var weight = 0.55;
    var at = vec2<f32>(in.uv.x * haze.aspect, in.uv.y) * 3.0;
    for (var octave = 0; octave < 4; octave += 1) {
        thick += weight * value_noise(at - drift * f32(octave + 1));
        at = at * 2.1 + 7.3;
        weight *= 0.5;
    }
    let low = smoothstep(haze.floor_y - 0.25, haze.floor_y + 0.2, in.uv.y);
    let alpha = clamp(haze.density * low * smoothstep(0.25, 0.85, thick), 0.0, 1.0);
    return vec4<f32>(vec3<f32>(0.62, 0.70, 0.78) * alpha, alpha);
}
