// Stage lighting: one warm spot from the house, a cool wash from above.
#ifndef LIGHT_GLSL
#define LIGHT_GLSL

const vec3 SPOT_COLOUR = vec3(1.00, 0.86, 0.66);
const vec3 WASH_COLOUR = vec3(0.20, 0.27, 0.48);

/// Wraps the light a little round the edge, as thick cloth does.
float wrapped(vec3 normal, vec3 toward, float wrap) {
    return max(0.0, (dot(normal, toward) + wrap) / (1.0 + wrap));
}

vec3 stage_light(vec3 normal, vec3 position, vec3 spot) {
    vec3 toward = spot - position;
    float falloff = 1.0 / (1.0 + 0.012 * dot(toward, toward));
    vec3 warm = SPOT_COLOUR * wrapped(normal, normalize(toward), 0.25) * falloff;
    vec3 cool = WASH_COLOUR * wrapped(normal, vec3(0.0, 1.0, 0.0), 0.60);
    return warm + cool;
}

#endif
