#version 450
#extension GL_GOOGLE_include_directive : require
// Velvet: dark where it faces you, bright along the folds' edges.
#include "common/cloth.glsl"
#include "common/light.glsl"

layout(location = 0) in vec3 at;
layout(location = 1) in vec3 facing;
layout(location = 2) in vec2 cloth_uv;

layout(set = 0, binding = 0) uniform Frame {
    mat4 world_to_clip;
    vec4 spot_and_seconds;
    vec4 draught;
} frame;

layout(location = 0) out vec4 colour;

const vec3 EYE = vec3(0.0, 2.1, 11.5);
const vec3 VELVET = vec3(0.33, 0.02, 0.035);
const vec3 FRINGE = vec3(0.72, 0.53, 0.22);

void main() {
    vec3 normal = normalize(gl_FrontFacing ? facing : -facing);
    float edge = 1.0 - abs(dot(normal, normalize(EYE - at)));
    float pile = 0.85 + 0.30 * value_noise(cloth_uv * vec2(420.0, 900.0));
    vec3 base = mix(VELVET, FRINGE, step(0.965, cloth_uv.y));
    vec3 lit = base * pile * stage_light(normal, at, frame.spot_and_seconds.xyz);
    colour = vec4(lit + VELVET * pow(edge, 3.0) * 0.8, 1.0);
}
