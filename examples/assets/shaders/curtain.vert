#version 450
#extension GL_GOOGLE_include_directive : require
// A hanging curtain that stirs in the draught when a drop flies past it.
#include "common/cloth.glsl"

layout(location = 0) in vec3 position;
layout(location = 1) in vec3 normal;
layout(location = 2) in vec2 uv;

layout(set = 0, binding = 0) uniform Frame {
    mat4 world_to_clip;
    vec4 spot_and_seconds; // xyz: the spot's place, w: seconds since the house opened
    vec4 draught;          // x: 0 still air to 1 a drop just passed
} frame;

layout(location = 0) out vec3 at;
layout(location = 1) out vec3 facing;
layout(location = 2) out vec2 cloth_uv;

void main() {
    float seconds = frame.spot_and_seconds.w;
    float push = billow(uv, seconds, frame.draught.x);
    float beside = billow(uv + vec2(0.01, 0.0), seconds, frame.draught.x);
    at = position + vec3(0.0, 0.0, push);
    facing = normalize(normal - vec3((beside - push) * 12.0, 0.0, 0.0));
    cloth_uv = uv;
    gl_Position = frame.world_to_clip * vec4(at, 1.0);
}
