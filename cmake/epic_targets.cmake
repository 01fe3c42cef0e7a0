# Functions that declare our targets, so that each folder's CMakeLists.txt is a list of names.

add_library(epic_options INTERFACE)
target_include_directories(epic_options INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_options(epic_options INTERFACE -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual -Werror)
if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  target_compile_options(epic_options INTERFACE -Wthread-safety -Wthread-safety-beta)
endif()
if(EPIC_SANITIZE)
  target_compile_options(epic_options INTERFACE -fsanitize=${EPIC_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(epic_options INTERFACE -fsanitize=${EPIC_SANITIZE})
endif()

# epic_library(NAME SOURCES a.cc b.cc DEPS x y): a static library `epic_NAME`.
function(epic_library NAME)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  if(ARG_SOURCES)
    add_library(epic_${NAME} STATIC ${ARG_SOURCES})
    target_link_libraries(epic_${NAME} PUBLIC epic_options ${ARG_DEPS})
  else()
    add_library(epic_${NAME} INTERFACE)
    target_link_libraries(epic_${NAME} INTERFACE epic_options ${ARG_DEPS})
  endif()
endfunction()

# epic_binary(NAME SOURCES a.cc DEPS x y): a program in bin/.
function(epic_binary NAME)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${NAME} ${ARG_SOURCES})
  target_link_libraries(${NAME} PRIVATE epic_options ${ARG_DEPS})
endfunction()

# epic_test(NAME SOURCES a_test.cc DEPS x y [LABELS l...] [TIMEOUT s]): one ctest entry that runs the whole program.
# Labels: `unit` (default), `slow`, `thread` (runs under the thread sanitizer), `integration`.
function(epic_test NAME)
  if(NOT EPIC_BUILD_TESTS)
    return()
  endif()
  cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;DEPS;LABELS" ${ARGN})
  if(NOT ARG_LABELS)
    set(ARG_LABELS unit)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 300)
  endif()
  add_executable(${NAME} ${ARG_SOURCES})
  target_link_libraries(${NAME} PRIVATE epic_options ${ARG_DEPS} GTest::gmock GTest::gtest_main)
  # Tests run briefly and are compiled often: light optimisation costs less time in all than full.
  target_compile_options(${NAME} PRIVATE $<$<CONFIG:Release>:-O1>)
  set_target_properties(${NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests_bin)
  add_test(NAME ${NAME} COMMAND ${NAME} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR})
  set_tests_properties(${NAME} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${ARG_TIMEOUT}
    ENVIRONMENT "EPIC_SOURCE_DIR=${CMAKE_SOURCE_DIR};EPIC_BINARY_DIR=${CMAKE_BINARY_DIR};ASAN_OPTIONS=detect_leaks=1;TSAN_OPTIONS=ignore_noninstrumented_modules=1")
endfunction()
