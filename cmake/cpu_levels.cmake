# Kernels are compiled once a level of x86-64 with that level's instructions; base/cpu_level.c chooses the level at start
# (VLM_CPU_LEVEL forces a lower one). Other processors have the level "generic" alone, compiled for what the compiler
# takes by default.

# vlm_cpu_level(ROOM LEVEL LINK libs... SOURCES files... FLAGS flags...): one level's objects, added to the room.
# Not -ffast-math: infinities and NaN keep their meaning. The two flags only drop errno and floating-point traps.
# With the sanitizers at -O2: at -O3 their checks took most of the build to compile, at -O1 attention ran half as fast.
function(vlm_cpu_level room level)
  cmake_parse_arguments(KERNEL "" "" "LINK;SOURCES;FLAGS" ${ARGN})
  add_library(${room}_${level} OBJECT ${KERNEL_SOURCES})
  target_include_directories(${room}_${level} PRIVATE ${CMAKE_SOURCE_DIR}/src)
  target_compile_definitions(${room}_${level} PRIVATE CPU_LEVEL=${level})
  target_compile_options(${room}_${level} PRIVATE $<IF:$<BOOL:${VLM_SANITIZE}>,-O2,-O3>
    -fno-math-errno -fno-trapping-math ${KERNEL_FLAGS})
  target_link_libraries(${room}_${level} PRIVATE ${KERNEL_LINK})
  target_sources(${room} PRIVATE $<TARGET_OBJECTS:${room}_${level}>)
endfunction()

# vlm_cpu_levels(ROOM LINK libs... SOURCES files... FLAGS flags...): all levels.
function(vlm_cpu_levels room)
  cmake_parse_arguments(KERNELS "" "" "FLAGS" ${ARGN})
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    target_compile_definitions(${room} PRIVATE CPU_LEVELS_X86)
    vlm_cpu_level(${room} generic ${KERNELS_UNPARSED_ARGUMENTS} FLAGS -march=x86-64 ${KERNELS_FLAGS})
    vlm_cpu_level(${room} avx2 ${KERNELS_UNPARSED_ARGUMENTS} FLAGS -march=x86-64-v3 ${KERNELS_FLAGS})
    vlm_cpu_level(${room} avx512 ${KERNELS_UNPARSED_ARGUMENTS}
      FLAGS -march=x86-64-v4 -mprefer-vector-width=512 ${KERNELS_FLAGS})
  else()
    vlm_cpu_level(${room} generic ${KERNELS_UNPARSED_ARGUMENTS} FLAGS ${KERNELS_FLAGS})
  endif()
endfunction()

if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  target_compile_definitions(base PRIVATE CPU_LEVELS_X86)
endif()

# The operators: src/ops/cpu/*.c once a level, src/ops/cpu/once/*.c once.
file(GLOB cpu_once CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/ops/cpu/once/*.c)
file(GLOB cpu_kernels CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/ops/cpu/*.c)
add_library(ops_cpu STATIC ${cpu_once})
target_link_libraries(ops_cpu PUBLIC tensor onednn OpenMP::OpenMP_C m)
set_property(SOURCE ${CMAKE_SOURCE_DIR}/src/ops/cpu/norm.c # its checks took half of a level's time to compile
  APPEND PROPERTY COMPILE_OPTIONS $<$<BOOL:${VLM_SANITIZE}>:-O1>)
vlm_cpu_levels(ops_cpu LINK OpenMP::OpenMP_C SOURCES ${cpu_kernels})
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64") # dot products of BF16 and of bytes in one instruction
  vlm_cpu_level(ops_cpu avx512bf16 LINK OpenMP::OpenMP_C SOURCES ${cpu_kernels}
    FLAGS -march=x86-64-v4 -mavx512bf16 -mavx512vnni -mprefer-vector-width=512)
  vlm_cpu_level(ops_cpu amx LINK OpenMP::OpenMP_C SOURCES ${cpu_kernels} # products of tiles of BF16
    FLAGS -march=x86-64-v4 -mavx512bf16 -mavx512vnni -mamx-tile -mamx-bf16 -mprefer-vector-width=512)
endif()

# Resizing pictures: without contraction, so that every level rounds alike.
file(GLOB image_kernels CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/src/image/kernels/*.c)
vlm_cpu_levels(image SOURCES ${image_kernels} FLAGS -ffp-contract=off)
