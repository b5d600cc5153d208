// Value noise for cloth and dust: cheap, and the same on every GPU.
#ifndef NOISE_GLSL
#define NOISE_GLSL

float hash21(vec2 p) {
    p = fract(p * vec2(123.34, 456.21));
    p += dot(p, p + 45.32);
    return fract(p.x * p.y);
}

float value_noise(vec2 p) {
    vec2 cell = floor(p);
    vec2 part = fract(p);
    vec2 blend = part * part * (3.0 - 2.0 * part);
    float low = mix(hash21(cell), hash21(cell + vec2(1.0, 0.0)), blend.x);
    float high = mix(hash21(cell + vec2(0.0, 1.0)), hash21(cell + vec2(1.0, 1.0)), blend.x);
    return mix(low, high, blend.y);
}

#endif
