// What both stages of the curtain agree on.
#ifndef CLOTH_GLSL
#define CLOTH_GLSL

#include "noise.glsl"

/// How far the cloth at `uv` is pushed toward the house, in metres; it hangs from the top, so the hem moves most.
float billow(vec2 uv, float seconds, float draught) {
    float slow = value_noise(vec2(uv.x * 3.0 - seconds * 0.20, uv.y * 1.5 + seconds * 0.07)) - 0.5;
    float quick = value_noise(vec2(uv.x * 11.0 + seconds * 0.90, uv.y * 4.0)) - 0.5;
    return draught * uv.y * uv.y * (0.32 * slow + 0.06 * quick);
}

#endif
