// Says what is on an image, with TensorRT (10 or later) or TensorRT for RTX: classify IMAGE.ppm [FOLDER], FOLDER being
// where the engine lies. The C++ API of TensorRT: docs.nvidia.com/deeplearning/tensorrt, "C++ API Documentation"

#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <cstdio>
#include <exception>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "classify_images.hpp"

namespace {

class Logger : public nvinfer1::ILogger {
    void log(Severity severity, const char* message) noexcept override {
        if (severity <= Severity::kWARNING) std::fprintf(stderr, "TensorRT: %s\n", message);
    }
};

void check(cudaError_t code) {
    if (code != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(code));
}

void check(bool done, const char* action) {
    if (!done) throw std::runtime_error(std::string("TensorRT cannot ") + action);
}

// Memory on the GPU.
struct Buffer {
    void* address = nullptr;
    explicit Buffer(std::size_t bytes) { check(cudaMalloc(&address, bytes)); }
    ~Buffer() { cudaFree(address); }
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;
};

std::vector<char> read(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error("cannot read " + path + ": build the engine first, see README.md");
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

template <typename T>
std::vector<float> run(nvinfer1::ICudaEngine& engine, const std::vector<T>& batch, const nvinfer1::Dims4& shape) {
    const std::unique_ptr<nvinfer1::IExecutionContext> context(engine.createExecutionContext());
    check(context != nullptr, "make an execution context");
    const char *source = engine.getIOTensorName(0), *result = engine.getIOTensorName(1);
    if (engine.getTensorIOMode(source) == nvinfer1::TensorIOMode::kOUTPUT) std::swap(source, result);
    check(context->setInputShape(source, shape), "take a batch of this shape");
    const nvinfer1::Dims answers = context->getTensorShape(result);
    std::vector<float> logits(static_cast<std::size_t>(answers.d[0]) * answers.d[1]);
    const Buffer input(batch.size() * sizeof(T)), output(logits.size() * sizeof(float));
    check(context->setTensorAddress(source, input.address), "take the input");
    check(context->setTensorAddress(result, output.address), "take the output");
    cudaStream_t stream = nullptr;
    check(cudaStreamCreate(&stream));
    check(cudaMemcpyAsync(input.address, batch.data(), batch.size() * sizeof(T), cudaMemcpyHostToDevice, stream));
    check(context->enqueueV3(stream), "run the engine");
    check(cudaMemcpyAsync(logits.data(), output.address, logits.size() * sizeof(float), cudaMemcpyDeviceToHost, stream));
    check(cudaStreamSynchronize(stream));
    check(cudaStreamDestroy(stream));
    return logits;
}

}  // namespace

int main(int count, char** arguments) {
    if (count < 2 || count > 3) {
        std::fprintf(stderr, "usage: classify IMAGE.ppm [FOLDER]\n");
        return 2;
    }
    const std::string folder = std::string(count == 3 ? arguments[2] : ".") + "/";
    try {
        const auto prepared = images::prepare(images::read_ppm(arguments[1]));
        const auto content = read(folder + preprocess::model_file);
        Logger logger;
        const std::unique_ptr<nvinfer1::IRuntime> runtime(nvinfer1::createInferRuntime(logger));
        check(runtime != nullptr, "start");
        const std::unique_ptr<nvinfer1::ICudaEngine> engine(
            runtime->deserializeCudaEngine(content.data(), content.size()));
        check(engine != nullptr, "load the engine: it belongs to another GPU or another version");
        using namespace preprocess;
        std::vector<float> logits;
        if constexpr (takes_pixels)
            logits = run(*engine, images::repeated(prepared), nvinfer1::Dims4{batch, height, width, 3});
        else
            logits = run(*engine, images::normalized(prepared), nvinfer1::Dims4{batch, 3, height, width});
        images::tell(logits.data(), logits.size() / batch, folder);
        return 0;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "classify: %s\n", error.what());
        return 2;
    }
}
