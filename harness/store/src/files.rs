//! What restic asks of a bucket, kept in files.

use s3s::dto::{
    CreateBucketInput, CreateBucketOutput, DeleteObjectInput, DeleteObjectOutput,
    GetBucketLocationInput, GetBucketLocationOutput, GetObjectInput, GetObjectOutput,
    HeadBucketInput, HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListObjectsV2Input,
    ListObjectsV2Output, PutObjectInput, PutObjectOutput,
};
use s3s::{S3, S3Request, S3Response, S3Result};
use s3s_fs::FileSystem;

/// `s3s-fs`, set right in one thing: an empty delimiter is none (S3 API, `ListObjectsV2`). With it `s3s-fs` 0.14.1 lists
/// nothing below a prefix, and restic's client asks so whenever it wants everything there.
pub(crate) struct Files(pub(crate) FileSystem);

/// The requests that are passed on as they are.
macro_rules! passed_on {
    ($($request:ident: $input:ty => $output:ty,)*) => {
        #[async_trait::async_trait]
        impl S3 for Files {
            $(async fn $request(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                self.0.$request(request).await
            })*

            async fn list_objects_v2(
                &self,
                mut request: S3Request<ListObjectsV2Input>,
            ) -> S3Result<S3Response<ListObjectsV2Output>> {
                request.input.delimiter.take_if(|delimiter| delimiter.is_empty());
                self.0.list_objects_v2(request).await
            }
        }
    };
}

passed_on! {
    create_bucket: CreateBucketInput => CreateBucketOutput,
    head_bucket: HeadBucketInput => HeadBucketOutput,
    get_bucket_location: GetBucketLocationInput => GetBucketLocationOutput,
    put_object: PutObjectInput => PutObjectOutput,
    get_object: GetObjectInput => GetObjectOutput,
    head_object: HeadObjectInput => HeadObjectOutput,
    delete_object: DeleteObjectInput => DeleteObjectOutput,
}
