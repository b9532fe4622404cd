# The CPU backend: src/ops/cpu/*.c are compiled once a level of x86-64 with that level's instructions, and
# src/ops/cpu/once/*.c once. cpu.c chooses the level at start (VLM_CPU_LEVEL forces a lower one). Other processors
# have the level "generic" alone, compiled for what the compiler takes by default.
file(GLOB cpu_once CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/ops/cpu/once/*.c)
file(GLOB cpu_kernels CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/ops/cpu/*.c)
add_library(ops_cpu STATIC ${cpu_once})
target_link_libraries(ops_cpu PUBLIC tensor onednn OpenMP::OpenMP_C m)

# Not -ffast-math: infinities and NaN keep their meaning. The two flags only drop errno and floating-point traps.
function(vlm_cpu_level level)
  add_library(ops_cpu_${level} OBJECT ${cpu_kernels})
  target_include_directories(ops_cpu_${level} PRIVATE ${CMAKE_SOURCE_DIR}/src)
  target_compile_definitions(ops_cpu_${level} PRIVATE CPU_LEVEL=${level})
  target_compile_options(ops_cpu_${level} PRIVATE -O3 -fno-math-errno -fno-trapping-math ${ARGN})
  target_link_libraries(ops_cpu_${level} PRIVATE OpenMP::OpenMP_C)
  target_sources(ops_cpu PRIVATE $<TARGET_OBJECTS:ops_cpu_${level}>)
endfunction()

if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  target_compile_definitions(ops_cpu PRIVATE CPU_LEVELS_X86)
  vlm_cpu_level(generic -march=x86-64)
  vlm_cpu_level(avx2 -march=x86-64-v3)
  vlm_cpu_level(avx512 -march=x86-64-v4 -mprefer-vector-width=512)
else()
  vlm_cpu_level(generic)
endif()
